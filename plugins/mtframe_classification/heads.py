"""From the last feature map to probabilities or to numbers."""

# Shapes: B images, C classes, K numbers.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError
from mtframe.kinds import FeatureSpec


class Classifier(nn.Module):
    """The mean of the last map to one logit a class: dropout, linear.

    Args:
        features: Maps of the backbone; the last one is used.
        info: Of the training data. One label each makes probabilities that add up to 1 (softmax), several
            labels one probability each (sigmoid).
        dropout: Probability of dropping a channel in training.

    Raises:
        RecipeError: `dropout` is out of its range.
        DataError: There is one label each, but fewer than two classes.
    """

    target: ClassVar[tuple[str, ...]] = ("label", "labels")

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo, *, dropout: float = 0.0) -> None:
        super().__init__()
        if info.target == "label" and len(info.classes) < 2:
            raise DataError(f"the training data has {len(info.classes)} classes; to tell them apart takes at least 2")
        self.exclusive = info.target == "label"
        self.linear = _linear(features, len(info.classes), dropout)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """`logits`: (B, C) float32."""
        return {"logits": _pooled(maps, self.linear)}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """`probabilities`: (C,) float32 for each image."""
        logits_BC = outputs["logits"].float()
        return [{"probabilities": row} for row in (logits_BC.softmax(1) if self.exclusive else logits_BC.sigmoid())]


class Regressor(nn.Module):
    """The mean of the last map to one number each: dropout, linear, then the data's own units.

    The linear layer predicts standardised numbers, so that metres and millimetres train alike: the mean and the
    standard deviation of the labels seen so far, which the loss reports to `observe`, are part of the head.

    Args:
        features: Maps of the backbone; the last one is used.
        info: Of the training data; its `classes` are the numbers' names.
        dropout: Probability of dropping a channel in training.

    Raises:
        RecipeError: `dropout` is out of its range.
    """

    target: ClassVar[str] = "value"
    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo, *, dropout: float = 0.0) -> None:
        super().__init__()
        count = len(info.classes)
        self.linear = _linear(features, count, dropout)
        for name in ("mean", "variance", "seen"):
            self.register_buffer(name, torch.zeros(count))

    @property
    def std(self) -> Tensor:
        """(K,) standard deviations of the labels seen so far; 1 where they do not differ."""
        # Not above 0: in float32 the variance of equal numbers is a little more than that.
        return torch.where(self.variance > 1e-12 * self.mean.square(), self.variance.sqrt(), 1)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """`standardised`, which the loss is of, and `values` in the units of the data: (B, K) float32 each."""
        standardised_BK = _pooled(maps, self.linear)
        return {"standardised": standardised_BK, "values": self.mean + self.std * standardised_BK}

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """Takes labels into the statistics: (B, K), NaN where unknown.

        Mean and variance of two sets give those of both (Chan, Golub and LeVeque, COMPSTAT 1982, eq. 2.1).
        """
        known = ~values.isnan()
        count = known.sum(0)
        share = count / (self.seen + count).clamp(min=1)
        mean = values.nan_to_num().sum(0) / count.clamp(min=1)
        variance = torch.where(known, values - mean, 0).square().sum(0) / count.clamp(min=1)
        between = share * (1 - share) * (mean - self.mean).square()
        self.variance.lerp_(variance, share).add_(between)
        self.mean.lerp_(mean, share)
        self.seen.add_(count)

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """`values`: (K,) float32 for each image."""
        return [{"values": row} for row in outputs["values"].float()]


def _linear(features: Sequence[FeatureSpec], count: int, dropout: float) -> nn.Sequential:
    if not 0 <= dropout < 1:
        raise RecipeError(f"dropout: must be 0 or more and below 1, got {dropout:g}")
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features[-1].channels, count))


def _pooled(maps: Sequence[Tensor], layer: nn.Module) -> Tensor:
    # fp32 from here on: bf16 has steps of 1/256, too coarse for numbers and for probabilities near 1.
    with torch.autocast(maps[-1].device.type, enabled=False):
        result: Tensor = layer(maps[-1].float().mean((2, 3)))
        return result
