"""TIDE: which errors average precision is lost to (arXiv:2008.08115)."""

# Shapes: D detections by falling score and G objects, of one image or of all; K classes.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .coco_evaluation import precision_at_recalls
from .coco_matching import FOUND_IOU, Matched

# Below this IoU with everything, a detection is on the background (the paper's t_b).
BACKGROUND_IOU = 0.1

CORRECT = -1
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)
TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")


@dataclass(frozen=True, slots=True)
class Errors:
    """How many errors there are of each type, and what they cost.

    Attributes:
        ap50: AP at IoU 0.5, 0..1, as COCO computes it; NaN without objects.
        costs: By how much AP50 would rise without the errors of a type: of TYPES, and of `false positives` and
            `false negatives` as a whole. They do not add up.
        counts: Number of errors of each of TYPES.
    """

    ap50: float
    costs: dict[str, float]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Judged:
    """Detections that are not ignored, by falling score, and objects; of one image or of all.

    Attributes:
        scores: (D,).
        labels: (D,).
        kinds: (D,) CORRECT or the type of error.
        targets: (D,) the object that a wrong class or place is about; -1 for none.
        objects: (G,) labels.
        found: (G,) whether a detection has found it.
    """

    scores: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray
    targets: np.ndarray
    objects: np.ndarray
    found: np.ndarray


def analyse(images: Sequence[Judged], num_classes: int) -> Errors:
    """Sorts errors into types and mends one type after the other (sections 2.2 and 2.3 of the paper).

    Two things that the paper leaves open: detections in crowds are no errors, and a class whose objects were all
    missed keeps its place in the mean when that is forgiven, with AP 0 where something was detected and 1 else.
    """
    table = _together(images)
    every = _count(table.objects, num_classes)
    classes, correct = np.flatnonzero(every), table.kinds == CORRECT
    winner, missed = _mendable(table)
    base = _mean_ap(table.labels, correct, every, classes)
    mended, counts = {}, {}
    for number, name in enumerate(TYPES[:-1]):
        wrong = table.kinds == number
        won, keep = wrong & winner, ~wrong | winner
        labels = table.labels.copy()
        labels[won] = table.objects[table.targets[won]]
        mended[name] = _mean_ap(labels[keep], (correct | won)[keep], every, classes)
        counts[name] = int(wrong.sum())
    counts["missed"] = int(missed.sum())
    asked = _count(table.objects[~missed], num_classes)
    mended["missed"] = _mean_ap(table.labels, correct, asked, classes)
    mended["false positives"] = _mean_ap(table.labels[correct], correct[correct], every, classes)
    found = _count(table.objects[table.found], num_classes)
    mended["false negatives"] = _mean_ap(table.labels, correct, found, classes)
    # 101 points of recall can make a better curve a little worse.
    costs = {name: max(value - base, 0.0) if len(classes) else float("nan") for name, value in mended.items()}
    return Errors(base, costs, counts)


def _mendable(table: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Which detections would find an object if mended, (D,), and which objects would still be missed, (G,)."""
    able = np.flatnonzero(table.targets >= 0)
    able = able[~table.found[table.targets[able]]]
    # Of several that would become one object's, the first gets it.
    reached, first = np.unique(table.targets[able], return_index=True)
    winner, missed = np.zeros(len(table.kinds), dtype=bool), ~table.found
    winner[able[first]] = True
    missed[reached] = False
    return winner, missed


def judge(image: Matched) -> Judged:
    """The type of each detection of an image.

    The first that holds, in the order of the paper's own code: a wrong place comes before a wrong class.
    """
    kinds, targets = np.full(len(image.labels), BACKGROUND), np.full(len(image.labels), -1)
    if len(image.objects):
        same = image.labels[:, None] == image.objects
        own, other = np.where(same, image.ious, 0), np.where(same, 0, image.ious)
        best_own, best_other = own.max(axis=1), other.max(axis=1)
        kinds = np.select(
            [
                image.match >= 0,
                (best_own >= BACKGROUND_IOU) & (best_own < FOUND_IOU),
                best_other >= FOUND_IOU,
                best_own >= FOUND_IOU,
                np.maximum(best_own, best_other) < BACKGROUND_IOU,
            ],
            [CORRECT, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
            BOTH,
        )
        about = [own.argmax(axis=1), other.argmax(axis=1)]
        targets = np.select([kinds == LOCALISATION, kinds == CLASSIFICATION], about, -1)
    keep = ~image.ignored
    found = np.isin(np.arange(len(image.objects)), image.match)
    return Judged(image.scores[keep], image.labels[keep], kinds[keep], targets[keep], image.objects, found)


def _together(images: Sequence[Judged]) -> Judged:
    """All images as one."""
    if not images:
        nothing = np.zeros(0, dtype=np.int64)
        return Judged(nothing, nothing, nothing, nothing, nothing, nothing.astype(bool))
    before = np.cumsum([0, *(len(image.objects) for image in images)])
    targets = [
        np.where(image.targets >= 0, image.targets + start, -1)
        for image, start in zip(images, before[:-1].tolist(), strict=True)
    ]
    scores, labels, kinds = (
        np.concatenate([getattr(image, name) for image in images]) for name in ("scores", "labels", "kinds")
    )
    order = np.argsort(-scores, kind="stable")
    return Judged(
        scores[order],
        labels[order],
        kinds[order],
        np.concatenate(targets)[order],
        np.concatenate([image.objects for image in images]),
        np.concatenate([image.found for image in images]),
    )


def _count(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(labels, minlength=num_classes)


def _mean_ap(labels: np.ndarray, correct: np.ndarray, wanted: np.ndarray, classes: np.ndarray) -> float:
    """Mean AP of these classes; NaN without any.

    Args:
        labels: Of detections, by falling score.
        correct: Whether each has found an object of its own.
        wanted: (K,) how many objects each class has.
        classes: Those to average over.
    """
    order = np.argsort(labels, kind="stable")
    labels, correct = labels[order], correct[order]
    starts, stops = (np.searchsorted(labels, classes, side) for side in ("left", "right"))
    values = [
        _ap(correct[start:stop], int(wanted[label]))
        for label, start, stop in zip(classes.tolist(), starts.tolist(), stops.tolist(), strict=True)
    ]
    return float(np.mean(values)) if values else float("nan")


def _ap(correct: np.ndarray, wanted: int) -> float:
    """COCO's AP of one class: the mean of the best precision at or beyond 101 recalls."""
    if not wanted:
        return float(len(correct) == 0)
    return float(precision_at_recalls(np.flatnonzero(correct) + 1, wanted).mean())
