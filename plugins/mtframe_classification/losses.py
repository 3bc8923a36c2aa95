"""Losses of classes and of numbers; what is unknown takes no part."""

# Shapes: B images, C classes, K numbers.

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError

from .heads import Regressor
from .weights import ClassWeights, PositiveWeights, positive_weights
from .weights import class_weights as weights_of_classes

# Label of an image whose class is not known.
UNKNOWN = -1


class CrossEntropy(nn.Module):
    """Cross-entropy between the classifier's softmax and one label each.

    With weights w and focal loss: -w_y (1 - p_y)^gamma ln p_y of an image of class y; the mean is weighed likewise, as
    torch's `F.cross_entropy` does.

    Args:
        info: Of the training data; it names the classes, and may know how often they occur.
        label_smoothing: Share of the target that is spread evenly over all classes (arXiv:1512.00567, section 7).
        class_weights: Of rare classes; `balanced`: N / (C n), of n of the N training images in C classes; `effective`:
            by the effective number of images (arXiv:1901.05555, eqs. 2 and 5); or weights by name, above 0, 1 for the
            others.
        beta: β of the effective number, from 0, where all classes weigh the same, to below 1, where it is n.
        gamma: How much less images count that are classified well (focal loss, arXiv:1708.02002, eq. 4); 0 or more.
            The paper has 2.

    Raises:
        RecipeError: An option is out of its range, names no class, or needs counts that the data set does not tell.
    """

    target: ClassVar[str] = "label"

    def __init__(
        self,
        info: DataInfo | None = None,
        *,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = None,
        beta: float = 0.999,
        gamma: float = 0.0,
    ) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        _check_gamma(gamma)
        self.label_smoothing, self.gamma = label_smoothing, gamma
        # Options, not weights of the model: what is loaded into it keeps its own.
        self.register_buffer("weight_C", weights_of_classes(class_weights, info, beta), persistent=False)
        self.weight_C: Tensor | None

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
        if self.weight_C is None and self.gamma == 0:
            loss_B = F.cross_entropy(logits_BC, wanted, reduction="none", label_smoothing=self.label_smoothing)
            return {"cross_entropy": _mean(loss_B, label_B != UNKNOWN)}
        shares_BC = wanted if wanted.dim() == 2 else F.one_hot(wanted, logits_BC.shape[1]).to(logits_BC)
        return {"cross_entropy": self._weighed(logits_BC, shares_BC, label_B != UNKNOWN)}

    def _weighed(self, logits_BC: Tensor, shares_BC: Tensor, known_B: Tensor) -> Tensor:
        weight_C = logits_BC.new_ones(logits_BC.shape[1]) if self.weight_C is None else self.weight_C
        smooth_BC = shares_BC * (1 - self.label_smoothing) + self.label_smoothing / shares_BC.shape[1]
        log_BC = logits_BC.log_softmax(1)
        terms_BC = smooth_BC * weight_C * log_BC
        if self.gamma:
            terms_BC = terms_BC * _focus(1 - log_BC.exp(), self.gamma)
        weight_B = (shares_BC * weight_C).sum(1).masked_fill(~known_B, 0)
        return (-terms_BC.sum(1)).masked_fill(~known_B, 0).sum() / (weight_B.sum() + (~known_B).all())


class BinaryCrossEntropy(nn.Module):
    """Cross-entropy between each of the classifier's sigmoids and its own label: yes or no.

    Args:
        info: Of the training data; it names the labels, and may know how often they apply.
        label_smoothing: Share of each target that is moved to one half.
        positive_weight: Weight of the labels that apply against those that do not, above 1 where they are rare: a
            number for all; `balanced`: how many training images a label does not apply to for each that it does; or
            weights by name, 1 for the others.
        gamma: How much less labels count that are predicted well (focal loss, arXiv:1708.02002, eq. 4); 0 or more. The
            paper has 2, and its α is a `positive_weight` of α / (1 - α).

    Raises:
        RecipeError: An option is out of its range, names no label, or needs counts that the data set does not tell.
    """

    target: ClassVar[str] = "labels"

    def __init__(
        self,
        info: DataInfo | None = None,
        *,
        label_smoothing: float = 0.0,
        positive_weight: PositiveWeights = 1.0,
        gamma: float = 0.0,
    ) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        _check_gamma(gamma)
        self.label_smoothing, self.gamma = label_smoothing, gamma
        self.register_buffer("positive_weight", positive_weights(positive_weight, info), persistent=False)
        self.positive_weight: Tensor

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`binary_cross_entropy`: mean over the labels that are known; 0 if there is none.

        Args:
            outputs: `logits` (B, C).
            targets: `labels` (B, C) float, 0 to 1, NaN where unknown.
        """
        labels_BC, logits_BC = targets["labels"].float(), outputs["logits"].float()
        known_BC = ~labels_BC.isnan()
        wanted_BC = labels_BC.nan_to_num() * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss_BC = F.binary_cross_entropy_with_logits(
            logits_BC, wanted_BC, reduction="none", pos_weight=self.positive_weight
        )
        if self.gamma:
            probability_BC = logits_BC.sigmoid()
            wrong_BC = probability_BC * (1 - wanted_BC) + (1 - probability_BC) * wanted_BC
            loss_BC = loss_BC * _focus(wrong_BC, self.gamma)
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


def _focus(wrong: Tensor, gamma: float) -> Tensor:
    """The factor of focal loss, of how much probability is on the wrong side."""
    # The floor keeps the gradient finite for gamma below 1 where a prediction is perfect.
    return wrong.clamp(min=1e-6) ** gamma


def _mean(loss: Tensor, known: Tensor) -> Tensor:
    """Mean of a loss where it is known; 0, with a gradient of 0, where nothing is."""
    return loss.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)


def _check_smoothing(value: float) -> None:
    if not 0 <= value < 1:
        raise RecipeError(f"label_smoothing: must be 0 or more and below 1, got {value:g}")


def _check_gamma(value: float) -> None:
    if value < 0:
        raise RecipeError(f"gamma: must be 0 or more, got {value:g}")
