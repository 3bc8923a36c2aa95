"""COCO's precision and recall, from what became of each detection: one order by score for each class.

A detection needs its score, its class, how many of its class stand before it on its image, and two integers with a bit
for each IoU and range of sizes: 32 bytes, whatever the number of classes.
"""

# Shapes: D detections and G objects of all images; T IoUs, R recalls, K classes, A ranges of sizes, M numbers of
# detections.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .coco_matching import AREAS, IOUS, Matched, case

RECALLS = np.linspace(0, 1, 101)


def precision_and_recall(
    images: Iterable[Matched], classes: int, max_detections: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision at all of an image's detections, (T, R, K, A), and recall at M numbers of them, (T, K, A, M).

    -1 for a class without an object of that size, as COCO has it. Detections of one score are taken in the order of
    the images.

    Args:
        images: By their ids. They are asked for one by one.
        classes: How many there are, K.
        max_detections: Numbers of detections of a class that count on an image, rising.
    """
    wanted, table = _together(images, classes)
    precision = np.full((len(IOUS), len(RECALLS), classes, len(AREAS)), -1.0)
    recall = np.full((len(IOUS), classes, len(AREAS), len(max_detections)), -1.0)
    order = np.lexsort((-table.scores, table.labels))
    bounds = np.searchsorted(table.labels[order], np.arange(classes + 1))
    for label in range(classes):
        mine = order[bounds[label] : bounds[label + 1]]
        found, uncounted, ranks = table.found[mine], table.uncounted[mine], table.ranks[mine]
        for area, total in enumerate(wanted[:, label].tolist()):
            if not total:
                continue
            for iou in range(len(IOUS)):
                bit = case(iou, area)
                hits = np.flatnonzero(found & bit)
                counted = np.cumsum((uncounted & bit) == 0)
                precision[iou, :, label, area] = precision_at_recalls(counted[hits], total)
                recall[iou, label, area] = [(ranks[hits] < limit).sum() / total for limit in max_detections]
    return precision, recall


def precision_at_recalls(places: np.ndarray, wanted: int) -> np.ndarray:
    """The best precision at or beyond each of RECALLS, (R,).

    Args:
        places: Of detections that have found an object, by falling score: the how-manieth each is, from 1.
        wanted: How many objects there are.
    """
    hits = np.arange(1, len(places) + 1)
    # Between hits precision only falls, so the best one is a hit's.
    best = np.maximum.accumulate((hits / places)[::-1])[::-1]
    at = np.searchsorted(hits / wanted, RECALLS)
    return np.append(best, 0.0)[at]


@dataclass(frozen=True, slots=True)
class _Table:
    """What became of all images' detections, (D,) each."""

    scores: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray
    found: np.ndarray
    uncounted: np.ndarray


def _together(images: Iterable[Matched], classes: int) -> tuple[np.ndarray, _Table]:
    """How many objects of each size and class are wanted, (A, K), and what became of detections."""
    wanted = np.zeros((len(AREAS), classes), dtype=np.int64)
    # Of no image, the shapes of no detection.
    rows = [_Table(np.zeros(0), *(np.zeros(0, dtype=np.int64) for _ in range(4)))]
    for image in images:
        for area, these in enumerate(image.wanted):
            wanted[area] += np.bincount(image.truth[these], minlength=classes)
        rows.append(_Table(image.scores, image.labels, image.ranks, image.found, image.uncounted))
    columns = (
        np.concatenate([getattr(row, name) for row in rows])
        for name in ("scores", "labels", "ranks", "found", "uncounted")
    )
    return wanted, _Table(*columns)
