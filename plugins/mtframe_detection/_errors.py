"""What AP is lost to: TIDE (arXiv:2008.08115)."""

# Shapes: D detections by falling score and G objects, of one image or of all; K classes.

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ._matching import FOUND_IOU, Matched

# Below this IoU with everything, a detection is on the background (the paper's t_b).
BACKGROUND_IOU = 0.1

CORRECT = -1
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND = range(5)
TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")

_RECALLS = np.linspace(0, 1, 101)


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
class _Table:
    """All images' detections that are not ignored, by falling score, and their objects."""

    scores: np.ndarray  # (D,)
    labels: np.ndarray  # (D,)
    kinds: np.ndarray  # (D,) CORRECT or a type of error
    targets: np.ndarray  # (D,) the object that it is about, in the order of all; -1 for none
    objects: np.ndarray  # (G,) labels
    found: np.ndarray  # (G,) whether a detection has found it


def analyse(images: Iterable[Matched], num_classes: int) -> Errors:
    """Sorts errors into types and mends one type after the other (sections 2.2 and 2.3 of the paper).

    Two things that the paper leaves open: detections in crowds are no errors, and a class whose objects were all
    missed keeps its place in the mean when that is forgiven, with AP 0 where something was detected and 1 else.
    """
    table = _table(images)
    wanted = np.bincount(table.objects, minlength=num_classes)
    classes = np.flatnonzero(wanted)
    correct = table.kinds == CORRECT
    everything = np.ones(len(correct), dtype=bool)

    def ap(labels: np.ndarray, correct: np.ndarray, keep: np.ndarray, wanted: np.ndarray) -> float:
        return _mean_ap(labels[keep], correct[keep], wanted, classes)

    # Of several detections that would all become the same object's, the first gets it.
    mendable = np.flatnonzero(table.targets >= 0)
    mendable = mendable[~table.found[table.targets[mendable]]]
    reached, first = np.unique(table.targets[mendable], return_index=True)
    winner = np.zeros(len(correct), dtype=bool)
    winner[mendable[first]] = True
    missed = ~table.found
    missed[reached] = False

    base = ap(table.labels, correct, everything, wanted)
    mended = {}
    for number, name in enumerate(TYPES[:-1]):
        wrong = table.kinds == number
        won = wrong & winner
        labels = table.labels.copy()
        labels[won] = table.objects[table.targets[won]]
        mended[name] = ap(labels, correct | won, ~wrong | won, wanted)
    mended["missed"] = ap(table.labels, correct, everything, wanted - _count(table.objects, missed, num_classes))
    mended["false positives"] = ap(table.labels, correct, correct, wanted)
    mended["false negatives"] = ap(table.labels, correct, everything, _count(table.objects, table.found, num_classes))
    counts = {name: int((table.kinds == number).sum()) for number, name in enumerate(TYPES[:-1])}
    # 101 points of recall can make a better curve a little worse.
    costs = {name: max(value - base, 0.0) if len(classes) else float("nan") for name, value in mended.items()}
    return Errors(base, costs, counts | {"missed": int(missed.sum())})


def _table(images: Iterable[Matched]) -> _Table:
    columns: list[tuple[np.ndarray, ...]] = []
    objects: list[np.ndarray] = []
    found: list[np.ndarray] = []
    before = 0
    for image in images:
        kinds, targets = classify(image)
        keep = ~image.ignored
        targets = np.where(targets >= 0, targets + before, -1)
        columns.append((image.scores[keep], image.labels[keep], kinds[keep], targets[keep]))
        objects.append(image.objects)
        found.append(np.isin(np.arange(len(image.objects)), image.match))
        before += len(image.objects)
    if not columns:
        nothing = np.zeros(0, dtype=np.int64)
        return _Table(nothing.astype(float), nothing, nothing, nothing, nothing, nothing.astype(bool))
    scores, labels, kinds, targets = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(-scores, kind="stable")
    return _Table(
        scores[order], labels[order], kinds[order], targets[order], np.concatenate(objects), np.concatenate(found)
    )


def classify(image: Matched) -> tuple[np.ndarray, np.ndarray]:
    """Type of each detection, and the object that a wrong class or place is about, -1 for none; each (D,).

    The first that holds, in the order of the paper's own code: a wrong place comes before a wrong class.
    """
    nothing = np.full(len(image.labels), -1)
    if not len(image.objects):
        return np.full(len(image.labels), BACKGROUND), nothing
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
    return kinds, np.select(
        [kinds == LOCALISATION, kinds == CLASSIFICATION], [own.argmax(axis=1), other.argmax(axis=1)], nothing
    )


def _count(labels: np.ndarray, among: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(labels[among], minlength=num_classes)


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
    hits = np.cumsum(correct)
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / wanted, _RECALLS)
    return float(best[places[places < len(hits)]].sum() / len(_RECALLS))
