"""Seconds of processor time and memory that COCO AP and its details take on data of the size of COCO's val2017.

    OMP_NUM_THREADS=1 python tests/benchmarks/detection_scores.py [--images 5000] [--detections 100] [--classes 80]

Memory is the most that the process has had so far, less what it had when the metric was made.

Objects (7.3 an image) and detections are made up: shaken copies of the objects, some of another class,
and boxes anywhere.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe_detection.average_precision import CocoAP


def made_up(index: int, detections: int, number: int, rng: np.random.Generator) -> tuple[dict[str, Tensor], Sample]:
    """One image's detections and objects."""
    count = int(rng.poisson(7.3))
    corner, side = rng.uniform(0, 400, (count, 2)), np.exp(rng.uniform(2, 5, (count, 2)))
    boxes = np.concatenate([corner, corner + side], axis=1)
    labels = rng.integers(0, number, count)
    copies = rng.integers(0, count, detections // 2 if count else 0)
    shaken = boxes[copies] + rng.normal(0, 0.1, (len(copies), 4)) * np.tile(side[copies], 2)
    shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
    others = rng.uniform(0, 400, (detections - len(copies), 2))
    found = np.concatenate([shaken, np.concatenate([others, others + 60], axis=1)])
    classes = np.concatenate([labels[copies], rng.integers(0, number, len(others))])
    classes = np.where(rng.random(detections) < 0.2, rng.integers(0, number, detections), classes)
    target = {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(labels),
        "crowd": torch.from_numpy(rng.random(count) < 0.01),
        "area": torch.from_numpy(side.prod(axis=1)),
    }
    prediction = {
        "boxes": torch.from_numpy(found),
        "scores": torch.from_numpy(rng.random(detections)),
        "labels": torch.from_numpy(classes),
    }
    return prediction, Sample(torch.empty(0, dtype=torch.uint8), target, (480, 640), index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100)
    parser.add_argument("--classes", type=int, default=80)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pairs = [made_up(index, options.detections, options.classes, rng) for index in range(options.images)]
    metric = CocoAP(DataInfo("boxes", tuple(map(str, range(options.classes)))))
    steps = {
        "update": lambda: metric.update([prediction for prediction, _ in pairs], [sample for _, sample in pairs]),
        "compute": metric.compute,
        "details": metric.details,
    }
    objects = sum(len(sample.target["boxes"]) for _, sample in pairs)
    before = peak()
    print(f"{options.images} images, {objects} objects, {options.images * options.detections} detections")
    for name, step in steps.items():
        start = time.process_time()
        step()
        print(f"{name}: {time.process_time() - start:.1f} s, {peak() - before} MiB")


def peak() -> int:
    """MiB that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
