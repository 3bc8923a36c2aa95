"""What was measured of the tasks of a recipe: means over steps, and how far they can be trusted."""

# Shapes: T tasks, N measured steps.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._student import quantile


@dataclass(frozen=True)
class Means:
    """What was measured at N steps, on average.

    Attributes:
        mean: (T, T) float64; NaN where nothing was measured.
        error: (T, T) standard errors of the means; NaN for fewer than two steps.
        negative: (T, T) share of the steps below 0.
        count: (T, T) how many steps each is of.
    """

    mean: Tensor
    error: Tensor
    negative: Tensor
    count: Tensor

    @classmethod
    def of(cls, values_NTT: Tensor) -> Means:
        """Over those that are not NaN."""
        known = ~values_NTT.isnan()
        count = known.sum(0)
        mean = values_NTT.nanmean(0)
        square = (values_NTT - mean).square().nan_to_num().sum(0)
        error = torch.where(count > 1, (square / (count - 1).clamp(min=1) / count.clamp(min=1)).sqrt(), torch.nan)
        return cls(mean, error, (values_NTT < 0).sum(0) / count, count)

    @property
    def certain(self) -> Tensor:
        """(T, T) means that differ from 0 by more than chance does in 0.27 % of cases; 0 in place of the others."""
        factors_TT = torch.tensor([[quantile(count) for count in row] for row in self.count.tolist()])
        return torch.where(self.mean.abs() > factors_TT * self.error, self.mean, 0)


@dataclass(frozen=True)
class Affinity:
    """How the tasks of a recipe affect each other.

    Attributes:
        tasks: Their names, T of them.
        measured: Number of measured steps.
        affinity: Of task i (row) onto task j (column): by which part an update for i alone lowers the loss of j.
        cosines: Of the tasks' gradients, by stage of the backbone, `all` first.
    """

    tasks: tuple[str, ...]
    measured: int
    affinity: Means
    cosines: dict[str, Means]

    @property
    def enough(self) -> bool:
        """Whether there are standard errors, without which nothing can be proposed."""
        return self.measured > 1
