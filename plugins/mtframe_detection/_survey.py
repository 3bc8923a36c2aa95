"""What the boxes of a whole split say: how many of which class, how large, where."""

# Shapes: I images, N boxes of one image, A of all.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from mtframe.data import Sample
from mtframe.evaluation import Bars, Matrix
from mtframe.kinds import Finding, Severity, Survey

# Pixels of the input that a box's shorter side must have to be seen at all: less than that, sampling may miss it.
LEAST_SIDE = 2.0

# Part of the boxes that may be smaller without being odd.
_FEW = 0.01

# Cells a side of the picture that shows where boxes are.
_CELLS = 16

_TINY = f"smaller than {LEAST_SIDE:g} pixels at this size"


def condensed(sample: Sample) -> dict[str, np.ndarray]:
    """Boxes (N, 4) XYXY in pixels of the original, labels (N,), crowd (N,), the image's (height, width), unknown ()."""
    target = sample.target
    boxes = target["boxes"].numpy()
    endless = np.isinf(boxes).any(axis=1)
    return {
        "boxes": boxes[~endless].astype(np.float32),
        "labels": target["labels"].numpy()[~endless].astype(np.int32),
        "crowd": target["crowd"].numpy()[~endless],
        "size": np.array(sample.size, np.int32),
        "unknown": endless.any(),
    }


def survey_boxes(classes: Sequence[str], condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
    """What the boxes of I images say; see `mtframe.kinds.Surveys`."""
    numbers = np.array([len(one["labels"]) for one in condensed], dtype=np.int64)
    owner = np.repeat(np.arange(len(condensed)), numbers)
    boxes, labels, crowd = (_joined(condensed, name) for name in ("boxes", "labels", "crowd"))
    boxes = boxes.reshape(-1, 4)
    crowd = crowd.astype(bool)
    sizes = np.array([one["size"] for one in condensed], dtype=np.float64).reshape(-1, 2)
    unknown = np.array([bool(one["unknown"]) for one in condensed], dtype=bool)
    wanted = ~crowd
    per_image = np.bincount(owner[wanted], minlength=len(condensed))
    counts = np.bincount(labels[wanted].astype(np.int64), minlength=len(classes))
    sides = (boxes[wanted, 2:] - boxes[wanted, :2]) * scales[owner[wanted], None]
    # NaN, of an image whose size is not known, is not less.
    tiny = (sides < LEAST_SIDE).any(axis=1)
    sized = bool(np.isfinite(scales).any())
    by_class = dict(zip(classes, counts.tolist(), strict=True))
    rows = {"regions to ignore": int(crowd.sum())}
    if sized:
        rows[_TINY] = int(tiny.sum())
    return Survey(
        things="boxes",
        classes=by_class,
        total=int(wanted.sum()),
        empty=int(((per_image == 0) & ~unknown).sum()),
        unknown=int(unknown.sum()),
        rows=rows,
        findings=_findings(int(tiny.sum()), int(wanted.sum())),
        pictures=(
            Bars("classes", "boxes", by_class),
            _lengths(sides, sized),
            _places(boxes[wanted], sizes[owner[wanted]]),
        ),
    )


def _findings(tiny: int, boxes: int) -> tuple[Finding, ...]:
    if not tiny:
        return ()
    severity: Severity = "error" if tiny == boxes else "warning" if tiny > _FEW * boxes else "note"
    text = f"{tiny} of {boxes} boxes become {_TINY}; a larger size, or crops, would show them"
    return (Finding("boxes-too-small", severity, text),)


def _lengths(sides: np.ndarray, sized: bool) -> Bars:
    """How many boxes are how long: the root of the area, in powers of two."""
    lengths = np.sqrt(np.nan_to_num(sides, nan=0.0).prod(axis=1)) if sized else np.zeros(0)
    edges = [0, *(2**power for power in range(1, 11)), math.inf]
    numbers, _ = np.histogram(lengths, bins=np.array(edges))
    names = [f"{low} to {high}" if math.isfinite(high) else f"{low} and more" for low, high in pairwise(edges)]
    last = int(np.flatnonzero(numbers).max(initial=0)) + 1
    return Bars(
        "sizes",
        "boxes, by root of the area in pixels of the input",
        dict(zip(names[:last], numbers[:last].tolist(), strict=True)),
    )


def _places(boxes: np.ndarray, sizes: np.ndarray) -> Matrix:
    """How many boxes cover each cell of a grid that is laid over every image."""
    known = (sizes > 0).all(axis=1)
    low, high = boxes[known, :2] / sizes[known, ::-1], boxes[known, 2:] / sizes[known, ::-1]
    # By differences: each box adds one where it begins and takes it back where it ends.
    first = np.floor(low * _CELLS).clip(0, _CELLS - 1).astype(np.int64)
    last = np.ceil(high * _CELLS).clip(1, _CELLS).astype(np.int64)
    steps = np.zeros((_CELLS + 1, _CELLS + 1))
    for column, row, sign in ((first, first, 1), (last, last, 1), (first, last, -1), (last, first, -1)):
        np.add.at(steps, (row[:, 1], column[:, 0]), sign)
    cover = steps.cumsum(0).cumsum(1)[:_CELLS, :_CELLS]
    ticks = tuple("" if cell % 4 else f"{cell / _CELLS:g}" for cell in range(_CELLS))
    return Matrix("boxes-over-each-place", "part of the height", "part of the width", ticks, ticks, cover.tolist())


def _joined(condensed: Sequence[Mapping[str, np.ndarray]], name: str) -> np.ndarray:
    return np.concatenate([one[name] for one in condensed]) if condensed else np.zeros(0)
