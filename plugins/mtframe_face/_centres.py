"""What losses over class centres share: which centres enter a step, and the cross entropy over them."""

# Shapes: B images, C classes (people), K classes that enter a step.

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError

# Label of somebody who is not a class, e.g. in evaluation: takes no part in the loss.
NOBODY = -1


def count_classes(info: DataInfo) -> int:
    """Number of people in the training data.

    Raises:
        DataError: Fewer than two.
    """
    if len(info.classes) < 2:
        raise DataError(f"the training data has {len(info.classes)} people; to tell people apart takes at least 2")
    return len(info.classes)


def count_sampled(classes: int, sample: float) -> int:
    """How many classes enter a step, at least 2.

    Raises:
        RecipeError: `sample` is not above 0 and at most 1.
    """
    if not 0 < sample <= 1:
        raise RecipeError(f"sample: must be above 0 and at most 1, a part of the class centres; got {sample:g}")
    return max(2, math.ceil(sample * classes))


def sample_classes(labels_B: Tensor, classes: int, count: int) -> tuple[Tensor, Tensor]:
    """Draws the classes that enter a step: all that the labels name, filled up with others at random.

    PartialFC, arXiv:2203.15565, section 3.2. The draw is from torch's generator.

    Args:
        labels_B: (B,) long, NOBODY where there is none.
        classes: Number of classes.
        count: How many to draw; more if the labels name more.

    Returns:
        The drawn classes (K,), ascending, and the labels as positions among them (B,).
    """
    named = labels_B[labels_B != NOBODY].unique()
    chance = torch.rand(classes, device=labels_B.device)
    chance[named] = 2.0
    drawn_K = chance.topk(max(count, len(named)), sorted=False).indices.sort().values
    positions_B = torch.searchsorted(drawn_K, labels_B.clamp(min=0))
    return drawn_K, positions_B.where(labels_B != NOBODY, NOBODY)


class _UnitRows(torch.autograd.Function):
    """Rows divided by their length, as `F.normalize`, whose backward pass makes five copies of them; this makes two.

    With 100,000 centres a copy is larger than what a small backbone keeps.
    """

    @staticmethod
    def forward(ctx: Any, rows_KD: Tensor) -> Tensor:
        lengths_K1 = rows_KD.norm(dim=1, keepdim=True).clamp(min=1e-12)
        unit_KD = rows_KD / lengths_K1
        ctx.save_for_backward(unit_KD, lengths_K1)
        return unit_KD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KD: Tensor) -> Tensor:
        unit_KD, lengths_K1 = ctx.saved_tensors
        # What would only change the length has no effect.
        along_K1 = (gradient_KD * unit_KD).sum(1, keepdim=True)
        return torch.addcmul(gradient_KD, unit_KD, along_K1, value=-1).div_(lengths_K1)


def unit_rows(rows_KD: Tensor) -> Tensor:
    """Rows (K, D) divided by their length; once differentiable."""
    unit: Tensor = _UnitRows.apply(rows_KD)
    return unit


def cross_entropy(logits_BK: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the images whose label is a class; 0 if there is none."""
    total = F.cross_entropy(logits_BK, labels_B, ignore_index=NOBODY, reduction="sum", label_smoothing=smoothing)
    return total / (labels_B != NOBODY).sum().clamp(min=1)
