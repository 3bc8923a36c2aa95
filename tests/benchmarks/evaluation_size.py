"""Memory and open files that an evaluation of the size of COCO's val2017 takes, with loader workers.

    OMP_NUM_THREADS=1 python tests/benchmarks/evaluation_size.py [--images 5000] [--classes 80] [--files 1024]

An untrained detector that gives 100 detections an image, on small made-up images with 7 boxes each; nothing is scored
but the machinery. `--files` is the limit of open files. Counted are those of the process that evaluates, and the most
memory that it has had, less what it had before; its workers' are not its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mtframe.assembly import Assembly
from mtframe.evaluation import evaluate
from mtframe.recipe import assemble_recipe

# Different pictures; the others are links to them.
_PICTURES, _SIDE, _BOXES = 50, 96, 7


def make_data(root: Path, images: int, classes: int) -> None:
    """COCO's layout: one training image, and the ones to evaluate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("val", images)):
        folder = root / f"{split}2017"
        folder.mkdir(parents=True)
        rows = list[dict[str, object]]()
        boxes = list[dict[str, object]]()
        for number in range(count):
            file = folder / f"{number:012}.jpg"
            if number < _PICTURES:
                Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)).save(file)
            else:
                file.symlink_to(folder / f"{number % _PICTURES:012}.jpg")
            rows.append({"id": number, "file_name": file.name, "width": _SIDE, "height": _SIDE})
            for _ in range(_BOXES):
                x, y, width, height = rng.uniform(1, _SIDE / 2, 4).tolist()
                boxes.append({
                    "id": len(boxes) + 1, "image_id": number, "category_id": int(rng.integers(classes)) + 1,
                    "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0,
                })  # fmt: skip
        names = [{"id": label + 1, "name": f"class {label}"} for label in range(classes)]
        (root / "annotations").mkdir(exist_ok=True)
        text = json.dumps({"images": rows, "annotations": boxes, "categories": names})
        (root / f"annotations/instances_{split}2017.json").write_text(text, encoding="utf-8")


class OpenFiles(threading.Thread):
    """Counts the process's open files until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, len(os.listdir("/proc/self/fd")))


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--files", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (options.files, hard))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_data(root, options.images, options.classes)
        recipe = assemble_recipe(
            "timm/resnet10t",
            [f"objects=object-detection:{root}"],
            [
                "backbone.pretrained=false", "tasks.objects.size=64", f"tasks.objects.batch_size={options.batch}",
                "tasks.objects.head={name: dense, width: 16, score_threshold: 0.0, nms_iou: 1.0}",
                f"train={{workers: {options.workers}, device: cpu}}",
            ],
        )  # fmt: skip
        assembly = Assembly(recipe)
        model = assembly.model()
        before, files, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, OpenFiles(), time.perf_counter()
        files.start()
        found = evaluate(model, assembly, ["objects"], "val")["objects"]
        files.done.set()
        files.join()
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"{found.images} images, {options.classes} classes, {options.workers} workers, at most {options.files} "
            f"files: {more:.0f} MiB more at the peak than before, {files.most} files open at most, "
            f"{time.perf_counter() - begin:.0f} s"
        )


if __name__ == "__main__":
    main()
