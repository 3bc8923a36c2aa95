"""Whether two installations train alike: the losses of small trainings, step by step, compared bit for bit.

    python tests/benchmarks/loss_traces.py --baseline PYTHON [--side 128]

`PYTHON` is that of another installation of mtframe, an older one. Both train seven recipes for 12 steps on the same
synthetic images; between them they have one and two sizes, balancers of losses and of gradients, sharing in part,
accumulation, a schedule, mosaics, mixup, a margin loss, bf16 and averaged weights. Images have a side of
128 pixels, of which 64 is an exact part; with another side the rounding of moved boxes shows too.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from mtframe.assembly import assemble
from mtframe.recipe import assemble_recipe
from mtframe.registry import resolve
from mtframe.training import Trainer

ALWAYS = ("backbone.pretrained=false", "train.workers=0", "train.precision=fp32", "train.ema=null", "train.log_every=1",
          "train.steps=12", "train.evaluate_every=null", "train.device=cpu")  # fmt: skip

# Preset and overrides of each task.
TASKS = {
    "faces": ("face-recognition", ["size=64", "batch_size=4", "head.dim=16"]),
    "objects": ("object-detection", ["size=64", "batch_size=2", "head.width=32"]),
    "places": ("image-classification", ["size=64", "batch_size=5"]),
}

# Tasks and overrides of each recipe.
RECIPES = {
    "one size": (["faces", "objects"], []),
    "two sizes": (["faces", "objects"], ["tasks.objects.size=96"]),
    "layers, pcgrad": (["faces", "objects"], ["sharing={name: layers, shared: 2}", "balancer=pcgrad"]),
    "accumulate": (["faces", "objects", "places"], ["train.accumulate=2", "balancer=uncertainty"]),
    "mosaic, mixup": (["objects", "places"], ["tasks.objects.transform.mosaic=0.7",
                                              "tasks.places.transform.mixup=0.2", "tasks.places.transform.cutmix=1.0"]),
    "round-robin, arcface": (["faces", "places"], ["train.schedule=round-robin", "tasks.faces.loss=arcface"]),
    "bf16, upgrad, averaged": (["faces", "objects"], ["balancer=upgrad", "train.precision=bf16", "train.ema=0.99"]),
}  # fmt: skip

Traces = dict[str, dict[str, list[str]]]


def main() -> None:
    """Prints a line a recipe: whether all losses of all steps are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", metavar="PYTHON")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--record", nargs=2, metavar=("FILE", "DATA"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        file, data = map(Path, arguments.record)
        file.write_text(json.dumps(record(data)), encoding="utf-8")
        return
    if arguments.baseline is None:
        parser.error("expected --baseline PYTHON")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize(folder / "data", arguments.side)
        found: list[Traces] = []
        for python in (sys.executable, arguments.baseline):
            file = folder / f"{len(found)}.json"
            subprocess.run([python, __file__, "--record", file, folder / "data"], check=True, cwd=folder,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            found.append(json.loads(file.read_text(encoding="utf-8")))
    for recipe, here in found[0].items():
        said = "the same" if here == found[1][recipe] else difference(here, found[1][recipe])
        print(f"{recipe:24} {said}")


def synthesize(data: Path, side: int) -> None:
    """Makes the images."""
    people = {"people": 6, "images": 4, "test_people": 3, "pairs": 4, "size": side}
    scenes = {"train": 12, "val": 2, "size": side}
    made: dict[str, tuple[str, dict[str, int]]] = {
        "faces": ("lfw", people), "objects": ("coco", scenes), "places": ("image-folder", {}),
    }  # fmt: skip
    for name, (dataset, sizes) in made.items():
        resolve("dataset", dataset).component.synthesize(data / name, **sizes)


def record(data: Path) -> Traces:
    """Trains every recipe; returns its columns of losses as they were written."""
    torch.set_num_threads(2)
    traces: Traces = {}
    for number, (recipe, (tasks, overrides)) in enumerate(RECIPES.items()):
        own = [f"tasks.{task}.{override}" for task in tasks for override in TASKS[task][1]]
        parts = [f"{task}={TASKS[task][0]}:{data / task}" for task in tasks]
        whole = assemble_recipe("timm/test_resnet.r160_in1k", parts, [*ALWAYS, *own, *overrides])
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, str(number))
            Trainer(assemble(whole), run).fit()
            with (run / "metrics.csv").open(encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        traces[recipe] = {column: [row[column] for row in rows] for column in rows[0] if "/" in column}
    return traces


def difference(one: dict[str, list[str]], other: dict[str, list[str]]) -> str:
    """From which step on two traces differ, and by how much."""
    steps, parts = [], []
    for column, values in one.items():
        for step, (value, expected) in enumerate(zip(values, other[column], strict=True), 1):
            if value != expected:
                steps.append(step)
                parts.append(abs(float(value) - float(expected)) / abs(float(expected)))
    return f"differs from step {min(steps)} on, by up to {max(parts):.1g} of the loss"


if __name__ == "__main__":
    main()
