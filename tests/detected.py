"""Objects, and what was found of them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from mtframe.data import DataInfo, Sample

INFO = DataInfo("boxes", ("cat", "dog", "bird"))
Pair = tuple[dict[str, Tensor], Sample]


def sample_of(index: int, boxes: Any, labels: Any, crowd: Any = None, area: Any = None) -> Sample:
    boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    area = area if area is not None else (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).tolist()
    target = {
        "boxes": boxes,
        "labels": torch.tensor(labels, dtype=torch.long),
        "crowd": torch.tensor(crowd if crowd is not None else [False] * len(boxes), dtype=torch.bool),
        "area": torch.tensor(area, dtype=torch.float32),
    }
    return Sample(torch.empty(0, dtype=torch.uint8), target, (300, 400), index)


def prediction_of(boxes: Any, scores: Any, labels: Any) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float64),
        "labels": torch.tensor(labels, dtype=torch.long),
    }


def random_data(seed: int, images: int = 12) -> list[Pair]:
    """Boxes of all sizes with crowds, and detections that are shaken copies of them or made up."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(images):
        number = int(rng.integers(0, 12))
        corner, side = rng.uniform(0, 250, (number, 2)), np.exp(rng.uniform(1.5, 5, (number, 2)))
        boxes = np.concatenate([corner, corner + side], axis=1)
        labels, crowd = rng.integers(0, 3, number), rng.random(number) < 0.15
        area = side.prod(axis=1) * rng.uniform(0.4, 1, number)
        copies = np.repeat(np.arange(number), rng.integers(0, 3, number))
        shaken = boxes[copies] + rng.normal(0, 0.06, (len(copies), 4)) * np.tile(side[copies], 2)
        shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
        made_up = rng.uniform(0, 200, (130 if index == 0 else 4, 2))
        found = np.concatenate([shaken, np.concatenate([made_up, made_up + 40], axis=1)])
        found_labels = np.concatenate([labels[copies], rng.integers(0, 3, len(made_up))])
        sample = sample_of(index, boxes.tolist(), labels.tolist(), crowd.tolist(), area.tolist())
        pairs.append((prediction_of(found.tolist(), rng.random(len(found)).tolist(), found_labels.tolist()), sample))
    return pairs


def with_other_classes(pairs: list[Pair], every: int) -> list[Pair]:
    """The same with every so-manieth detection of another class."""
    changed = []
    for prediction, sample in pairs:
        labels = prediction["labels"].clone()
        labels[::every] = (labels[::every] + 1) % len(INFO.classes)
        changed.append((prediction | {"labels": labels}, sample))
    return changed


def xywh(boxes: Tensor) -> list[list[float]]:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()


def reference(pairs: list[Pair]) -> np.ndarray:
    """The 12 numbers of pycocotools on a results file and a json in this order; an image's id is its index, or said."""
    images, truth, found = [], [], []
    for prediction, sample in pairs:
        target = sample.target
        id = int(target.get("image_id", sample.index))
        images.append({"id": id, "height": 300, "width": 400})
        common = {"image_id": id}
        for n, box in enumerate(xywh(target["boxes"])):
            rest = {"category_id": int(target["labels"][n]), "area": float(target["area"][n])}
            crowd = {"iscrowd": int(target["crowd"][n]), "id": len(truth) + 1}
            truth.append({**common, **rest, **crowd, "bbox": box})
        for n, box in enumerate(xywh(prediction["boxes"])):
            rest = {"category_id": int(prediction["labels"][n]), "score": float(prediction["scores"][n])}
            found.append({**common, **rest, "bbox": box})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": truth, "categories": [{"id": n} for n in range(3)]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats)
