"""COCO's evaluation, a class at a time.

The evaluator wants a dictionary for each box and keeps what became of it at each IoU and size: about 2 kB. Precision
and recall of a class depend on no other class, so only one class is there at once. The numbers are the same.
"""

# Shapes: N boxes of all images, T IoUs, R recalls, K classes, A sizes, M numbers of detections.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of all images, objects or detections.

    Attributes:
        image: (N,) int: of which image, rising.
        label: (N,) int.
        boxes: (N, 4) float, XYXY.
        values: What else each has, by COCO's name, (N,) each: `area`, `iscrowd`, `score`.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    values: Mapping[str, np.ndarray]

    def of(self, label: int) -> Boxes:
        """Those of one class."""
        chosen = self.label == label
        values = {name: column[chosen] for name, column in self.values.items()}
        return Boxes(self.image[chosen], self.label[chosen], self.boxes[chosen], values)

    def annotations(self) -> list[dict[str, Any]]:
        """As COCO has them. Ids are from 1: the evaluator takes 0 for "no match"."""
        sides = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        columns = (
            self.image.tolist(),
            self.label.tolist(),
            sides.tolist(),
            *(v.tolist() for v in self.values.values()),
        )
        return [
            {
                "id": id,
                "image_id": image,
                "category_id": label,
                "bbox": box,
                **dict(zip(self.values, rest, strict=True)),
            }
            for id, (image, label, box, *rest) in enumerate(zip(*columns, strict=True), start=1)
        ]


def precision_and_recall(
    objects: Boxes, detections: Boxes, classes: int, max_detections: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision, (T, R, K, A, M), and recall, (T, K, A, M), as COCO has them; -1 for a class without objects.

    T are IoUs 0.50:0.05:0.95, A all sizes, below 32², below 96² and above, M the numbers of detections an image.
    """
    found = [_of_class(objects.of(label), detections.of(label), label, max_detections) for label in range(classes)]
    return (np.concatenate([precision for precision, _ in found], axis=2),
            np.concatenate([recall for _, recall in found], axis=1))  # fmt: skip


def _of_class(
    objects: Boxes, detections: Boxes, label: int, max_detections: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    from faster_coco_eval import COCO, COCOeval_faster

    images = np.union1d(objects.image, detections.image).tolist()
    # Of a class that is nowhere, an image without boxes has the shape of the numbers.
    frame = {
        "images": [{"id": image} for image in images or [0]],
        "categories": [{"id": label, "name": str(label)}],
    }
    truth = COCO({**frame, "annotations": objects.annotations()}, print_function=_silent)
    found = COCO({**frame, "annotations": detections.annotations()}, print_function=_silent)
    evaluator = COCOeval_faster(truth, found, "bbox", print_function=_silent)
    evaluator.params.maxDets = max_detections
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def _silent(*_: object) -> None:
    pass
