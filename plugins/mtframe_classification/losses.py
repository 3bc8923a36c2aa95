"""Losses of classes and of numbers; what is unknown takes no part."""

# Shapes: B images, C classes, K numbers.

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.errors import RecipeError

from .heads import Regressor

# Label of an image whose class is not known.
UNKNOWN = -1


class CrossEntropy(nn.Module):
    """Cross-entropy between the classifier's softmax and one label each.

    Args:
        label_smoothing: Share of the target that is spread evenly over all classes (arXiv:1512.00567, section 7).

    Raises:
        RecipeError: `label_smoothing` is out of its range.
    """

    target: ClassVar[str] = "label"

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`cross_entropy`: mean over the images whose class is known; 0 if there is none.

        Args:
            outputs: `logits` (B, C).
            targets: `label` (B,) long, -1 where unknown. Where images were mixed also `probabilities` (B, C), the
                share of each class, which then is the target.
        """
        label_B = targets["label"]
        wanted = targets.get("probabilities", label_B.clamp(min=0))
        logits_BC = outputs["logits"].float()
        loss_B = F.cross_entropy(logits_BC, wanted, reduction="none", label_smoothing=self.label_smoothing)
        return {"cross_entropy": _mean(loss_B, label_B != UNKNOWN)}


class BinaryCrossEntropy(nn.Module):
    """Cross-entropy between each of the classifier's sigmoids and its own label: yes or no.

    Args:
        label_smoothing: Share of each target that is moved to one half.
        positive_weight: Weight of the labels that apply against those that do not: above 1 where they are rare.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "labels"

    def __init__(self, *, label_smoothing: float = 0.0, positive_weight: float = 1.0) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        if positive_weight <= 0:
            raise RecipeError(f"positive_weight: must be above 0, got {positive_weight:g}")
        self.label_smoothing, self.positive_weight = label_smoothing, positive_weight

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`binary_cross_entropy`: mean over the labels that are known; 0 if there is none.

        Args:
            outputs: `logits` (B, C).
            targets: `labels` (B, C) float, 0 to 1, NaN where unknown.
        """
        labels_BC, logits_BC = targets["labels"].float(), outputs["logits"].float()
        known_BC = ~labels_BC.isnan()
        wanted_BC = labels_BC.nan_to_num() * (1 - self.label_smoothing) + self.label_smoothing / 2
        weight = logits_BC.new_tensor(self.positive_weight)
        loss_BC = F.binary_cross_entropy_with_logits(logits_BC, wanted_BC, reduction="none", pos_weight=weight)
        return {"binary_cross_entropy": _mean(loss_BC, known_BC)}


class RegressionLoss(nn.Module):
    """How far numbers are from their labels, in standard deviations of the training labels.

    Args:
        head: The head that predicts; it keeps the statistics.
        kind: `l1`: the distance; `l2`: its square; `huber`: half the square up to `delta`, a line beyond (Huber,
            Annals of Mathematical Statistics 35, 1964), which outliers pull at less.
        delta: Where Huber's loss becomes a line, in standard deviations.

    Raises:
        RecipeError: `delta` is out of its range.
    """

    target: ClassVar[str] = "value"

    def __init__(self, head: Regressor, *, kind: Literal["l1", "l2", "huber"] = "huber", delta: float = 1.0) -> None:
        super().__init__()
        if delta <= 0:
            raise RecipeError(f"delta: must be above 0, got {delta:g}")
        self.kind, self.delta = kind, delta
        # In a tuple: the head's weights are in the model already, and are not this loss's.
        self._head = (head,)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The kind's name: mean over the numbers that are known; 0 if there is none.

        Args:
            outputs: `standardised` (B, K).
            targets: `value` (B, K) float, NaN where unknown.
        """
        (head,) = self._head
        value_BK = targets["value"].float()
        if self.training:
            head.observe(value_BK)
        known_BK = ~value_BK.isnan()
        error_BK = outputs["standardised"].float() - (value_BK.nan_to_num() - head.mean) / head.std
        return {self.kind: _mean(self._distance(error_BK), known_BK)}

    def _distance(self, error: Tensor) -> Tensor:
        if self.kind == "l1":
            return error.abs()
        if self.kind == "l2":
            return error.square()
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)


def _mean(loss: Tensor, known: Tensor) -> Tensor:
    """Mean of a loss where it is known; 0, with a gradient of 0, where nothing is."""
    return loss.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)


def _check_smoothing(value: float) -> None:
    if not 0 <= value < 1:
        raise RecipeError(f"label_smoothing: must be 0 or more and below 1, got {value:g}")
