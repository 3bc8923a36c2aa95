"""Detections of an image against its objects, as COCO pairs them.

COCO pairs anew at each of 10 IoUs for objects of each of 4 ranges of sizes: 40 times, each on its own. Here such a case
is one bit of an integer, so all are paired in one go over the few detections and objects that overlap.
"""

# Shapes: D detections and G objects of one image, C pairs that overlap.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .annotations import box_areas

# cocodataset.org/#detection-eval. Objects of each range of areas are wanted in turn.
IOUS = np.linspace(0.5, 0.95, 10)
AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))

# What a detection has to overlap an object by to have found it.
FOUND_IOU = float(IOUS[0])

# Bits of all IoUs for each range of areas, and of the IoUs that so many of the thresholds allow, in all ranges.
_OF_AREA = np.array([((1 << len(IOUS)) - 1) << len(IOUS) * n for n in range(len(AREAS))], dtype=np.int64)
_UP_TO = np.array([sum(((1 << n) - 1) << len(IOUS) * area for area in range(len(AREAS))) for n in range(len(IOUS) + 1)])
_ALL = int(_OF_AREA.sum())


def case(iou: int, area: int) -> int:
    """The bit of the n-th of IOUS and AREAS."""
    return 1 << len(IOUS) * area + iou


@dataclass(frozen=True, slots=True)
class Matched:
    """One image's detections, by falling score, and its objects.

    Attributes:
        scores: (D,).
        labels: (D,).
        ranks: (D,) how many of its class stand before each.
        found: (D,) int64, cases in which each has found an object that is wanted.
        uncounted: (D,) int64, cases in which each does not count: it has found one that is not wanted, or none and is
            of another size itself.
        match: (D,) which of `objects` it has found, at IoU 0.5 and of all sizes; -1 for none.
        wanted: (A, G) bool, whether objects of a range count.
        truth: (G,) labels.
        objects: (G',) labels; crowds are not among them.
        ious: (D, G'), with these.
    """

    scores: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray
    found: np.ndarray
    uncounted: np.ndarray
    match: np.ndarray
    wanted: np.ndarray
    truth: np.ndarray
    objects: np.ndarray
    ious: np.ndarray

    @property
    def ignored(self) -> np.ndarray:
        """(D,) bool, whether it has found none of `objects`, but lies in a crowd of its class."""
        return (self.uncounted & case(0, 0)) > 0


def match_image(found: Mapping[str, np.ndarray], target: Mapping[str, Tensor], max_detections: int) -> Matched:
    """Pairs detections with objects.

    In its turn each takes, of the objects of its class that are still free, the one that it overlaps most, of equal
    ones the last; one that is not wanted only where no other is left. A crowd is never taken: what lies in it is
    not counted.

    Args:
        found: `boxes` (D, 4) XYXY, `scores` (D,) and `labels` (D,).
        target: A sample's.
        max_detections: How many of each class count, those of the highest scores.
    """
    order = np.argsort(-found["scores"], kind="stable")
    ranks = _rank_in_class(found["labels"][order])
    order, ranks = order[ranks < max_detections], ranks[ranks < max_detections]
    boxes, labels = found["boxes"][order], found["labels"][order].astype(np.int64)
    objects = objects_of(target)
    truth, crowd = objects["labels"], objects["crowd"]
    ious = _ious(boxes, objects["boxes"], crowd)
    wanted = ~_outside(objects["area"]) & ~crowd
    bits = _OF_AREA @ wanted
    taken, uncounted, match = _pair(np.where(labels[:, None] == truth, ious, 0), bits.tolist(), crowd.tolist())
    uncounted |= (_OF_AREA @ _outside(box_areas(boxes))) & ~taken
    # Their places among what are no crowds.
    places = np.append(np.cumsum(~crowd) - 1, -1)
    return Matched(
        scores=found["scores"][order],
        labels=labels,
        ranks=ranks,
        found=taken,
        uncounted=uncounted,
        match=places[match],
        wanted=wanted,
        truth=truth,
        objects=truth[~crowd],
        ious=ious[:, ~crowd],
    )


def objects_of(target: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A sample's `boxes`, `labels`, `crowd` and `area`; that of the box where the data set has no other."""
    known = {name: target[name].numpy() for name in ("boxes", "labels", "crowd", "area") if name in target}
    return {"area": box_areas(known["boxes"]), **known}


def pair(ious: np.ndarray) -> np.ndarray:
    """For each row in turn, the free column of the highest IoU, if that is 0.5 or more; -1 for none."""
    count = ious.shape[1]
    return _pair(ious, [case(0, 0)] * count, [False] * count)[2]


def _pair(ious: np.ndarray, wanted: list[int], crowd: list[bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cases in which rows have found a column that is wanted, and one that is not, and that of the first case.

    Args:
        ious: (D, G).
        wanted: G cases in which each column is.
        crowd: G, whether any number of rows may find it.
    """
    rows, columns = np.nonzero(ious >= FOUND_IOU)
    overlap = ious[rows, columns]
    # Of equal IoUs the last column, as pycocotools takes it.
    order = np.lexsort((-columns, -overlap, rows))
    cases = _UP_TO[np.searchsorted(IOUS, overlap[order], side="right")]
    pairs = list(zip(rows[order].tolist(), columns[order].tolist(), cases.tolist(), strict=True))
    found, ignored, match = [0] * len(ious), [0] * len(ious), [-1] * len(ious)
    free = [_ALL] * len(wanted)
    # A case that wants a column never ignores it, so the second round takes nothing that the first would need.
    for row, column, able in pairs:
        taken = able & wanted[column] & free[column] & ~found[row]
        if taken:
            found[row] |= taken
            free[column] &= ~taken
            if taken & 1:
                match[row] = column
    for row, column, able in pairs:
        taken = able & ~wanted[column] & free[column] & ~found[row] & ~ignored[row]
        if taken:
            ignored[row] |= taken
            if not crowd[column]:
                free[column] &= ~taken
    return np.array(found, np.int64), np.array(ignored, np.int64), np.array(match, np.int64)


def _outside(areas: np.ndarray) -> np.ndarray:
    """(A, N), whether areas are in none of the ranges; both ends are in."""
    low, high = np.array(AREAS).T[:, :, None]
    return (areas < low) | (areas > high)


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """How many of the same label stand before each."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered)
    return ranks


def _ious(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoUs of (D, 4) and (G, 4) boxes XYXY, (D, G); of crowds, how much of a box lies in them."""
    shared = np.ones((len(boxes), len(others)))
    for low, high in ((0, 2), (1, 3)):
        # A far side as COCO has it, of corner and length: the last bit decides what overlaps by just 0.5.
        far, other_far = (each[:, low] + (each[:, high] - each[:, low]) for each in (boxes, others))
        sides = np.minimum(far[:, None], other_far)
        sides -= np.maximum(boxes[:, None, low], others[:, low])
        shared *= sides.clip(0, out=sides)
    areas = box_areas(boxes)[:, None]
    whole = np.where(crowd, areas, areas + box_areas(others) - shared)
    return np.divide(shared, whole, out=shared, where=shared > 0)
