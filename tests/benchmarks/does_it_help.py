"""Does it help? Every balancer and sharing scheme beside the plain sum and beside a model for each task.

    python tests/benchmarks/does_it_help.py [--data synthetic|PATH] [--steps 200] [--seeds 3] [--only NAME ...]
    python tests/benchmarks/does_it_help.py --table

Trains each configuration from scratch with the same budget: the same number of steps, batch sizes, learning rate,
schedule and backbone (timm/test_resnet, 0.4 million parameters, at 64 pixels); a task alone sees as many of its images
as it does beside the others. AdamW, to which a common factor of all gradients does not matter; no clipping, to which
it would. The last weights are scored on the validation split, by each task's primary metric.

`synthetic` renders three tasks, each with images of its own: faces (verification of people not trained on), objects (AP
at IoU 0.5) and scenes (accuracy). PATH is a folder with LFW's files in `lfw` and COCO's in `coco`: faces (View 1's test
pairs), and categories, which says which of COCO's 20 most frequent ones are in a picture at 96 pixels (mean AP): a
detector from scratch finds next to nothing after so few images, so its boxes could tell no method from another.

A line of JSON a training goes to `--out`, whose trainings are not repeated: it can be stopped and gone on with, and
`--only` adds to it. The gain of a training is the mean over tasks of its score relative to that of a model for the task
alone with the same seed (arXiv:1904.08918, eq. 4). ± is the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image

from mtframe.assembly import assemble
from mtframe.evaluation import mean_relative_gain
from mtframe.kinds import CountsFailures
from mtframe.recipe import Recipe
from mtframe.registry import discover, resolve
from mtframe.training import Trainer

# At 64 pixels; a level of stride 4 gives the smallest shapes enough points.
OBJECTS = {
    "preset": "object-detection",
    "transform": {"name": "letterbox", "scale": [1.0, 1.0], "brightness": 0, "contrast": 0, "saturation": 0},
    "head": {"name": "dense", "strides": [4, 8, 16, 32], "width": 64, "depth": 1},
    "metrics": [{"name": "coco-ap"}],
    "batch_size": 12,
}
FACES = {"preset": "face-recognition", "loss": "softmax", "batch_size": 16}
SCENES = {"preset": "scene-recognition", "batch_size": 12, "flip_test": False}
CATEGORIES = {"preset": "multi-label-classification", "batch_size": 16}

# The backbone has BatchNorm: what these make of each task's own gradient, not of what its images contribute.
EXACT = ("cagrad", "mgda", "nash-mtl", "pcgrad", "upgrad")

# What is counted in steps, where the default is for longer trainings than these.
OPTIONS = {"dwa": {"name": "dwa", "period": 20}, "stch": {"name": "stch", "warmup": 20}}

# Of sharing schemes that need more than their name; `layers` at three cuts.
SHARINGS: dict[str, list[dict[str, Any]]] = {
    "layers": [{"name": "layers", "shared": shared} for shared in (1, 2, 3)],
}


def main() -> None:
    """Trains what is asked for, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of configurations, e.g. alone sum pcgrad mmoe")
    parser.add_argument("--work", type=Path, default=Path("data/does-it-help"), help="where data is made")
    parser.add_argument("--out", type=Path, default=Path("runs/does-it-help.jsonl"))
    parser.add_argument("--table", action="store_true", help="train nothing, print what --out holds")
    arguments = parser.parse_args()
    # So that several can run beside each other, and whatever else the machine does costs no spinning threads.
    torch.set_num_threads(1)
    done = read(arguments.out)
    if not arguments.table:
        tasks = (
            synthetic(arguments.work) if arguments.data == "synthetic" else real(Path(arguments.data), arguments.work)
        )
        data = "synthetic" if arguments.data == "synthetic" else "real"
        for seed in range(arguments.seeds):
            for name, part in configurations(tasks):
                key = {"data": data, "name": name, "seed": seed, "steps": arguments.steps}
                chosen = not arguments.only or {name, name.partition(" ")[0]} & set(arguments.only)
                if chosen and not any(key.items() <= row.items() for row in done):
                    done.append(key | train(part, seed, arguments.steps) | {"commit": commit()})
                    append(arguments.out, done[-1])
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    )
    for data, steps in dict.fromkeys((row["data"], row["steps"]) for row in done):
        print_table([row for row in done if (row["data"], row["steps"]) == (data, steps)])


def commit() -> str:
    """What the code is, for the row."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def configurations(tasks: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """By name, what of a recipe differs: each task alone, every balancer, every sharing scheme with the plain sum."""
    for task, part in tasks.items():
        yield f"alone {task}", {"tasks": {task: part}}
    # `sum` first; families have members of their own, and periods fit into the training.
    balancers = [c.name for c in discover("balancer") if c.dist == "mtframe" and c.name != "torchjd"]
    for name in sorted(balancers, key=lambda name: (name != "sum", name)):
        yield name, {"tasks": tasks, "balancer": OPTIONS.get(name, name)}
    for name in EXACT:
        yield f"{name} exact", {"tasks": tasks, "balancer": name, "train": {"exact_gradients": True}}
    for name in [c.name for c in discover("sharing") if c.dist == "mtframe" and c.name != "network"]:
        for options in SHARINGS.get(name, [{"name": name}]):
            label = " ".join(str(value) for value in options.values())
            yield label, {"tasks": tasks, "sharing": options}


def train(part: dict[str, Any], seed: int, steps: int) -> dict[str, Any]:
    """Scores by task, processor time and parameters of one training."""
    recipe = Recipe.from_plain(
        {
            "backbone": {"name": "timm/test_resnet", "pretrained": False},
            **part,
            "hooks": [],
            "train": part.get("train", {})
            | {
                "steps": steps, "lr": 2e-3, "clip_grad": None, "ema": None, "precision": "fp32", "seed": seed,
                "evaluate_every": None, "workers": 0, "device": "cpu",
            },
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        trainer = Trainer(assemble(recipe), Path(folder) / "run")
        results = trainer.fit()
        seconds = time.process_time() - begun
    balancer = trainer.parts.balancer
    failures = balancer.failures if isinstance(balancer, CountsFailures) else 0
    values = {task: score_of(task, result) for task, result in results.items()}
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(part.get("balancer", ""), part.get("sharing", ""), seed, values, f"{seconds:.0f} s", flush=True)
    return {"scores": values, "seconds": seconds, "parameters": parameters, "failures": failures}


def score_of(task: str, result: Any) -> float:
    """The task's score; of objects AP50, which moves earlier than AP."""
    return float(result.values["AP50"] if task == "objects" else result.score)


def synthetic(work: Path) -> dict[str, Any]:
    """Three tasks on rendered images."""
    parts = {
        "faces": ("lfw", FACES, {"people": 120, "images": 10, "test_people": 50, "pairs": 300, "size": 72}),
        "objects": ("coco", OBJECTS, {"train": 1200, "val": 150, "size": 72}),
        "scenes": ("image-folder", SCENES, {"train": 1200, "val": 300, "size": 72}),
    }
    tasks = {}
    for task, (name, part, options) in parts.items():
        root = work / task
        if not root.is_dir():
            resolve("dataset", name).component.synthesize(root, **options)
        tasks[task] = {**part, "size": 64, "dataset": {"name": name, "root": str(root)}}
    return tasks


def real(path: Path, work: Path) -> dict[str, Any]:
    """Two tasks on photographs."""
    small = work / "coco"
    names = write_categories(path / "coco", small / "labels.csv")
    shrink(path / "coco", small)
    categories = {"name": "csv", "root": str(small), "labels": names}
    return {
        "faces": {**FACES, "size": 64, "dataset": {"name": "lfw", "root": str(path / "lfw")}},
        "categories": {**CATEGORIES, "size": 64, "dataset": categories},
    }


def shrink(coco: Path, small: Path) -> None:
    """Copies COCO's images with a shorter side of 96 pixels: reading whole photographs takes longer than training."""
    for image in (*coco.glob("train2017/*.jpg"), *coco.glob("val2017/*.jpg")):
        copy = small / image.relative_to(coco)
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(image) as picture:
                factor = 96 / min(picture.size)
                size = [max(1, round(side * factor)) for side in picture.size]
                picture.convert("RGB").resize(size, reducing_gap=2.0).save(copy, quality=95)


def write_categories(coco: Path, table: Path) -> list[str]:
    """Writes which of the 20 most frequent categories are in each image of COCO; returns their names."""
    rows: list[tuple[str, str, set[int]]] = []
    names: dict[int, str] = {}
    for split in ("train", "val"):
        content = json.loads((coco / "annotations" / f"instances_{split}2017.json").read_text(encoding="utf-8"))
        names |= {category["id"]: category["name"] for category in content["categories"]}
        there: dict[int, set[int]] = {image["id"]: set() for image in content["images"]}
        for annotation in content["annotations"]:
            there[annotation["image_id"]].add(annotation["category_id"])
        rows += [(f"{split}2017/{image['file_name']}", split, there[image["id"]]) for image in content["images"]]
    counts = Counter(category for _, split, found in rows if split == "train" for category in found)
    chosen = [category for category, _ in counts.most_common(20)]
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split", *(names[category] for category in chosen)])
        writer.writerows([name, split, *(int(c in found) for c in chosen)] for name, split, found in rows)
    return [names[category] for category in chosen]


def read(out: Path) -> list[dict[str, Any]]:
    """The trainings that were done."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.is_file() else []


def append(out: Path, row: dict[str, Any]) -> None:
    """Adds a training."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line a configuration, best gain first."""
    alone = {(task, row["seed"]): score for row in rows if row["name"].startswith("alone")
             for task, score in row["scores"].items()}  # fmt: skip
    joint: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if not row["name"].startswith("alone"):
            joint.setdefault(row["name"], []).append(row)
    tasks = list(dict.fromkeys(task for task, _ in alone))
    seeds = sorted({seed for _, seed in alone})
    print(f"\n{rows[0]['data']}, {rows[0]['steps']} steps\n")
    print(f"| | seeds | {' | '.join(tasks)} | gain over alone, % | gain over the sum, % | seconds | failures |")
    print(f"|{'---|' * (len(tasks) + 6)}")
    scores = " | ".join(spread([alone[task, seed] for seed in seeds]) for task in tasks)
    print(f"| alone | {len(seeds)} | {scores} | | | | |")
    summed = {row["seed"]: row["scores"] for row in joint.get("sum", [])}

    def gains(of: list[dict[str, Any]], base: dict[int, dict[str, float]]) -> list[float]:
        higher = dict.fromkeys(tasks, True)
        return [100 * mean_relative_gain(r["scores"], base[r["seed"]], higher) for r in of if r["seed"] in base]

    single = {seed: {task: alone[task, seed] for task in tasks} for seed in seeds}
    for name, of in sorted(joint.items(), key=lambda item: -statistics.mean(gains(item[1], single) or [-1e9])):
        scores = " | ".join(spread([row["scores"][task] for row in of]) for task in tasks)
        seconds = statistics.median(row["seconds"] for row in of)
        failed = sum(row["failures"] for row in of)
        over_alone, over_sum = spread(gains(of, single), 1), spread(gains(of, summed), 1) if name != "sum" else ""
        print(f"| `{name}` | {len(of)} | {scores} | {over_alone} | {over_sum} | {seconds:.0f} | {failed} |")


def spread(values: list[float], digits: int = 3) -> str:
    """Mean ± standard deviation; of one value the value."""
    if not values:
        return "n/a"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
