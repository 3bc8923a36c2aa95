"""How long looking at data takes: `data check` with one process and two, and what a training does before it begins.

    .venv/bin/python tests/benchmarks/data_survey.py

Data: 5,000 training and 500 validation images of 640 x 480, which are hard links to 220 JPEGs, with 20 boxes of 20
classes each, in COCO's layout and YOLO's.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mtframe.assembly import Assembly
from mtframe.recipe import assemble_recipe
from mtframe.survey import Look, draw_surveys, learned_images, survey, surveyed_tasks
from mtframe.training._surveys import ask_heads, survey_labels

IMAGES, BOXES, CLASSES, SIZE = {"train": 5000, "val": 500}, 20, 20, (480, 640)


def write(root: Path) -> None:
    rng = np.random.default_rng(0)
    (root / "coco" / "annotations").mkdir(parents=True)
    for split, count in IMAGES.items():
        pool = [photograph(root / "pool" / split / f"{number}.jpg", rng) for number in range(count // 25 + 1)]
        folders = [root / "coco" / f"{split}2017", root / "yolo" / "images" / split, root / "yolo" / "labels" / split]
        for folder in folders:
            folder.mkdir(parents=True)
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for number in range(count):
            for folder in folders[:2]:
                os.link(pool[number % len(pool)], folder / f"{number:06}.jpg")
            sides = np.exp(rng.uniform(np.log(8), np.log(200), (BOXES, 2)))
            corners, labels = rng.uniform(size=(BOXES, 2)) * (SIZE[::-1] - sides), rng.integers(0, CLASSES, BOXES)
            images.append({"id": number, "file_name": f"{number:06}.jpg", "height": SIZE[0], "width": SIZE[1]})
            lines = []
            for label, corner, side in zip(labels.tolist(), corners, sides, strict=True):
                box = {"id": len(annotations), "image_id": number, "category_id": label, "bbox": [*corner, *side]}
                annotations.append(box)
                parts = [*((corner + side / 2) / SIZE[::-1]), *(side / SIZE[::-1])]
                lines.append(f"{label} " + " ".join(f"{part:.6f}" for part in parts))
            (folders[2] / f"{number:06}.txt").write_text("\n".join(lines), encoding="utf-8")
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": n, "name": f"c{n}"} for n in range(CLASSES)],
        }
        file = root / "coco" / "annotations" / f"instances_{split}2017.json"
        file.write_text(json.dumps(content), encoding="utf-8")
    (root / "yolo" / "classes.txt").write_text("".join(f"c{n}\n" for n in range(CLASSES)), encoding="utf-8")


def photograph(path: Path, rng: np.random.Generator) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(small).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def timed(what: str, work: Callable[[], object], images: int) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:42}{wall:7.2f} s{cpu:7.2f} s of this process{images / wall:9.0f} images/s", flush=True)


def main() -> None:
    images = sum(IMAGES.values())
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        for name in ("coco", "yolo"):
            overrides = [f"tasks.objects.dataset.name={name}", "backbone.pretrained=false"]
            recipe = assemble_recipe(
                "timm/test_resnet.r160_in1k", [f"objects=object-detection:{folder}/{name}"], overrides
            )
            assembly = Assembly(recipe.check())
            model = assembly.model(restoring=True)
            assembly.dataset("objects", "val")
            tasks = surveyed_tasks(assembly, ("train", "val"))
            timed(f"{name}: labels, before a training", lambda: survey_labels(tasks, {}), images)  # noqa: B023
            said = survey_labels(tasks, {})
            timed(f"{name}: what the head can learn", lambda: ask_heads(tasks, said, model), images)  # noqa: B023
            timed(f"{name}: digests of what is trained on", lambda: learned_images(assembly), IMAGES["train"])  # noqa: B023
            (task,) = tasks
            for dataset in task.datasets.values():
                dataset.decode_size = None
            for workers in (0, 2):
                look = Look(workers=workers)
                timed(f"{name}: data check -j {max(1, workers)}", lambda: survey(task, look), images)  # noqa: B023
        timed("the picture", lambda: draw_surveys(said, Path(folder) / "labels.png"), 1)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
