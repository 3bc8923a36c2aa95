"""Detections of an image against its objects, as COCO pairs them."""

# Shapes: D detections and G objects of one image.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .annotations import box_areas

# What a detection has to overlap an object by to have found it.
FOUND_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Matched:
    """One image's detections, by falling score, and its objects.

    Attributes:
        scores: (D,).
        labels: (D,).
        objects: (G,) labels; crowds are not among them.
        ious: (D, G).
        match: (D,) which object it has found: in its turn, the one of its class that is still free and that it
            overlaps most, by IoU 0.5 or more, of equal ones the last; -1 for none.
        ignored: (D,) whether it has found none, but lies in a crowd of its class.
    """

    scores: np.ndarray
    labels: np.ndarray
    objects: np.ndarray
    ious: np.ndarray
    match: np.ndarray
    ignored: np.ndarray


def match_image(found: Mapping[str, np.ndarray], target: Mapping[str, Tensor], max_detections: int) -> Matched:
    """Pairs detections with objects.

    Args:
        found: `boxes` (D, 4) XYXY, `scores` (D,) and `labels` (D,).
        target: A sample's.
        max_detections: How many of each class count, those of the highest scores.
    """
    order = np.argsort(-found["scores"], kind="stable")
    order = order[_rank_in_class(found["labels"][order]) < max_detections]
    boxes, labels = found["boxes"][order], found["labels"][order].astype(np.int64)
    truth, classes, crowd = (target[name].numpy() for name in ("boxes", "labels", "crowd"))
    objects = classes[~crowd]
    ious = _ious(boxes, truth[~crowd])
    match = pair(np.where(labels[:, None] == objects, ious, 0))
    # Of a crowd, a detection only has to lie inside.
    inside = _intersections(boxes, truth[crowd]) / np.maximum(box_areas(boxes), np.finfo(float).tiny)[:, None]
    ignored = ((inside >= FOUND_IOU) & (labels[:, None] == classes[crowd])).any(axis=1)
    return Matched(found["scores"][order], labels, objects, ious, match, ignored & (match < 0))


def pair(ious: np.ndarray) -> np.ndarray:
    """For each row in turn, the free column of the highest IoU, if that is 0.5 or more; -1 for none.

    Of equal IoUs the last column, as pycocotools takes it.
    """
    match, free = np.full(len(ious), -1), np.ones(ious.shape[1], dtype=bool)
    rows, columns = np.nonzero(ious >= FOUND_IOU)
    order = np.lexsort((-columns, -ious[rows, columns], rows))
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if match[row] < 0 and free[column]:
            match[row], free[column] = column, False
    return match


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """How many of the same label stand before each."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return ranks


def _intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas shared by (D, 4) and (G, 4) boxes XYXY, (D, G)."""
    shared = np.ones((len(boxes), len(others)))
    for low, high in ((0, 2), (1, 3)):
        sides = np.minimum(boxes[:, None, high], others[:, high])
        sides -= np.maximum(boxes[:, None, low], others[:, low])
        shared *= sides.clip(0, out=sides)
    return shared


def _ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    shared = _intersections(boxes, others)
    return shared / (box_areas(boxes)[:, None] + box_areas(others) - shared)
