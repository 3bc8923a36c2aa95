"""What one task after the other forgets: the article's networks under the three schedules, on rendered data.

    python tests/benchmarks/forgetting.py [--epochs 12] [--seeds 1] [--out forgetting.json]

Faces and objects have as many images each, and every schedule shows each image once an epoch. Both tasks are scored
twice an epoch; with `epochs` that is when one task's batches have ended and the other's begin. The learning rate is
constant and no weights are averaged: either would hide what is lost between two scores. About ten minutes on two
cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtframe.assembly import Assembly
from mtframe.recipe import assemble_recipe
from mtframe.registry import resolve
from mtframe.run import RunFolder
from mtframe.training import Trainer

SCHEDULES = ("joint", "round-robin", "epochs")
TASKS = {"faces": "accuracy", "objects": "AP"}


def main() -> None:
    """Trains and prints one table a schedule, then what was forgotten."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tutorial")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=1800, help="Of each task, a multiple of 12")
    parser.add_argument("--schedules", nargs="+", default=SCHEDULES, choices=SCHEDULES)
    parser.add_argument("--override", action="append", default=[], help="Of the recipe, KEY=VALUE; may be repeated")
    parser.add_argument("--data", type=Path, help="Where the images are, or are made if there are none")
    parser.add_argument("--out", type=Path, help="File for all scores, as json")
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder) / "data"
        make_data(data, arguments.images)
        found: dict[str, list[list[dict[str, float]]]] = {}
        for schedule in arguments.schedules:
            for seed in range(arguments.seeds):
                run = Path(folder) / f"{schedule}-{seed}"
                found.setdefault(schedule, []).append(train(run, data, schedule, seed, arguments))
                print(f"{schedule}, seed {seed}: {time.monotonic() - start:.0f} s so far", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(found), encoding="utf-8")
    for schedule, runs in found.items():
        print("\n".join(["", f"schedule: {schedule}", *table(runs)]))
    print("\n".join(["", "at the end", *summary(found)]))


def make_data(root: Path, images: int) -> None:
    """As many images of people as of scenes, unless they are there."""
    if not (root / "faces").exists():
        resolve("dataset", "lfw").component.synthesize(
            root / "faces", people=images // 12, images=12, test_people=60, pairs=2000
        )
        resolve("dataset", "coco").component.synthesize(root / "objects", train=images, val=200)


def train(run: Path, data: Path, schedule: str, seed: int, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """One training; both tasks' scores, twice an epoch."""
    recipe = assemble_recipe(
        arguments.backbone,
        [f"faces=tutorial-faces:{data}/faces", f"objects=tutorial-objects:{data}/objects"],
        ["tasks.objects.transform={name: letterbox, scale: [1.0, 1.0], brightness: 0, contrast: 0, saturation: 0}",
         "tasks.faces.batch_size=30", "tasks.objects.batch_size=30", f"train.schedule={schedule}",
         f"train.epochs={arguments.epochs}", f"train.seed={seed}", "train.evaluate_every=0.5",
         "train.lr=2e-3", "train.min_lr=2e-3", "train.ema=null", "train.channels_last=false",
         *arguments.override],
    )  # fmt: skip
    assembly = Assembly(recipe)
    trainer = Trainer(assembly, RunFolder(run).create(recipe, assembly.infos))
    trainer.fit()
    return [{task: row["tasks"][task][name] for task, name in TASKS.items()} for row in trainer.history]


def table(runs: list[list[dict[str, float]]]) -> Iterator[str]:
    """A line every half epoch: the mean scores over the seeds."""
    yield "epoch   " + "  ".join(f"{task:>8}" for task in TASKS)
    for half in range(len(runs[0])):
        yield f"{(half + 1) / 2:5.1f}   " + "  ".join(f"{mean(runs, task, half):8.3f}" for task in TASKS)


def summary(found: dict[str, list[list[dict[str, float]]]]) -> Iterator[str]:
    """A line a schedule: both scores at the end, and what the last epoch's blocks took away again."""
    yield "schedule      " + "  ".join(f"{task:>8}" for task in TASKS) + "   lost to the other task's last block"
    for schedule, runs in found.items():
        ends = "  ".join(f"{mean(runs, task, -1):8.3f}" for task in TASKS)
        lost = ""
        if schedule == "epochs":
            # Faces go first: they are at their best half an epoch before the end, objects a whole one.
            faces = mean(runs, "faces", -2), mean(runs, "faces", -1)
            objects = mean(runs, "objects", -3), mean(runs, "objects", -2)
            lost = f"   faces {faces[0]:.3f} to {faces[1]:.3f}, objects {objects[0]:.3f} to {objects[1]:.3f}"
        yield f"{schedule:12}  {ends}{lost}"


def mean(runs: list[list[dict[str, float]]], task: str, half: int) -> Any:
    """Over the seeds."""
    return statistics.mean(run[half][task] for run in runs)


if __name__ == "__main__":
    main()
