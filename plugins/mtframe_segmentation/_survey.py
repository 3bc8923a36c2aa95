"""What the masks of a whole split say: which classes are on how many images, and cover how much of them."""

# Shapes: I images, C classes.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from mtframe.evaluation import Bars
from mtframe.kinds import Survey


def condensed(mask: Tensor, classes: int) -> dict[str, np.ndarray]:
    """Pixels (C,) of each class in a mask, and of how many there are () none is known."""
    pixels = np.bincount(mask.flatten().numpy(), minlength=256)
    return {"pixels": pixels[:classes], "unknown": np.array(pixels[classes:].sum())}


def survey_masks(classes: Sequence[str], condensed: Sequence[Mapping[str, np.ndarray]]) -> Survey:
    """On how many images each class is; see `mtframe.kinds.Surveys`."""
    pixels = np.array([one["pixels"] for one in condensed], dtype=np.int64).reshape(-1, len(classes))
    unknown = np.array([int(one["unknown"]) for one in condensed], dtype=np.int64)
    counts = dict(zip(classes, (pixels > 0).sum(axis=0).tolist(), strict=True))
    whole = max(1, int(pixels.sum() + unknown.sum()))
    shares = {name: 100 * int(number) / whole for name, number in zip(classes, pixels.sum(axis=0), strict=True)}
    return Survey(
        things="images of a class",
        classes=counts,
        total=sum(counts.values()),
        unknown=int((pixels.sum(axis=1) == 0).sum()),
        rows={"pixels of no known class, percent": round(100 * int(unknown.sum()) / whole)},
        pictures=(Bars("classes", "images", counts), Bars("pixels", "percent of all pixels", shares)),
        amounts=dict(zip(classes, pixels.sum(axis=0).tolist(), strict=True)),
        measured="pixels of a class",
    )
