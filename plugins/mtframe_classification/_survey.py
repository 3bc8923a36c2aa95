"""What the labels of a whole split say: how many images of each class, how many numbers that are known."""

# Shapes: I images, C classes or numbers, N of them in one image.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from mtframe.evaluation import Bars
from mtframe.kinds import Survey


def condensed(present: Tensor, known: Tensor) -> dict[str, np.ndarray]:
    """What is kept of one label: places (N,) of (C,) classes that are there, and of how many that is known at all."""
    return {"present": present.nonzero().flatten().numpy().astype(np.int32), "known": np.array(int(known.sum()))}


def survey_classes(things: str, classes: Sequence[str], condensed: Sequence[Mapping[str, np.ndarray]]) -> Survey:
    """How often each class is there, and on how many images none; see `mtframe.kinds.Surveys`."""
    present = np.concatenate([one["present"] for one in condensed]) if condensed else np.zeros(0, np.int32)
    counts = np.bincount(present, minlength=len(classes)).tolist()
    known = np.array([int(one["known"]) for one in condensed], dtype=np.int64)
    filled = np.array([len(one["present"]) > 0 for one in condensed], dtype=bool)
    by_class = dict(zip(classes, counts, strict=True))
    return Survey(
        things=things,
        classes=by_class,
        total=sum(counts),
        empty=int(((known > 0) & ~filled).sum()),
        unknown=int((known == 0).sum()),
        pictures=(Bars("classes", things, by_class),),
    )
