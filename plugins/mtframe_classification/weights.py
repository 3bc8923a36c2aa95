"""Weights that make rare classes count: by hand, or of how often each occurs in training."""

# Shapes: C classes.

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mtframe.data import ClassCounts, DataInfo
from mtframe.errors import RecipeError
from mtframe.registry import did_you_mean

ClassWeights = Literal["balanced", "effective"] | dict[str, float] | None
PositiveWeights = Literal["balanced"] | float | dict[str, float]


def class_weights(wanted: ClassWeights, info: DataInfo | None, beta: float) -> Tensor | None:
    """The weight of each class, (C,) float; None where all are alike.

    `balanced`: N / (C n_c), so that classes of n_c of N training images count equally, and an image 1 on average.
    `effective`: in proportion to (1 - β) / (1 - β^n_c), the inverse of the effective number of images, with mean 1 over
    the classes (arXiv:1901.05555, eqs. 2 and 5, section 4.1).

    Raises:
        RecipeError: A name is no class, a weight is not above 0, `beta` is out of its range, or nobody knows how often
            classes occur.
    """
    if not 0 <= beta < 1:
        raise RecipeError(f"beta: must be 0 or more and below 1, got {beta:g}")
    if wanted is None:
        return None
    if not isinstance(wanted, str):
        return _named("class_weights", wanted, info)
    # A class without images is in no label; whatever its weight, it must be finite.
    images_C = torch.tensor(_counts("class_weights", wanted, info).positive, dtype=torch.float64).clamp(min=1)
    if wanted == "balanced":
        weight_C = images_C.sum() / (len(images_C) * images_C)
    else:
        weight_C = (1 - beta) / (1 - beta**images_C)
        weight_C *= len(weight_C) / weight_C.sum()
    return weight_C.float()


def positive_weights(wanted: PositiveWeights, info: DataInfo | None) -> Tensor:
    """The weight of labels that apply against those that do not: () for all, or (C,) float.

    `balanced`: how many training images a label does not apply to for each that it does, so that both count equally.

    Raises:
        RecipeError: A name is no label, a weight is not above 0, or nobody knows how often labels apply.
    """
    if isinstance(wanted, str):
        counts = _counts("positive_weight", wanted, info)
        # A label that always applies, or never, is weighed as if it did not once.
        positive_C, negative_C = (
            torch.tensor(numbers, dtype=torch.float64).clamp(min=1) for numbers in (counts.positive, counts.negative)
        )
        return (negative_C / positive_C).float()
    if isinstance(wanted, Mapping):
        return _named("positive_weight", wanted, info)
    if wanted <= 0:
        raise RecipeError(f"positive_weight: must be above 0, got {wanted:g}")
    return torch.tensor(float(wanted))


def _named(option: str, weights: Mapping[str, float], info: DataInfo | None) -> Tensor:
    """Weights by name, 1 for the others."""
    classes = info.classes if info is not None else ()
    for name, weight in weights.items():
        if name not in classes:
            raise RecipeError(f"{option}: there is no class {name!r}{did_you_mean(name, classes)}")
        if weight <= 0:
            raise RecipeError(f"{option}.{name}: must be above 0, got {weight:g}")
    return torch.tensor([float(weights.get(name, 1)) for name in classes])


def _counts(option: str, wanted: str, info: DataInfo | None) -> ClassCounts:
    counts = info.counts if info is not None else None
    if counts is None or info is None or {len(counts.positive), len(counts.negative)} != {len(info.classes)}:
        raise RecipeError(
            f"{option}: {wanted!r} follows how often each class occurs in training, which this data set does not tell "
            "(DataInfo.counts); give weights by name, as {NAME: 2.0}"
        )
    return counts
