"""Balancers whose weights are parameters, trained with the model."""

# Shapes: T tasks.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ._terms import add


class Uncertainty(nn.Module):
    """A learned noise for each task (arXiv:1705.07115, eq. 7), with s = log σ² as the paper advises:

    sum_t exp(-s_t) L_t / 2 + s_t / 2. At its optimum exp(s_t) = L_t. The paper leaves out the 1/2 before a loss that is
    a classification's; a task's loss here may be of both sorts, so all are treated alike, which only moves s_t.

    Args:
        tasks: Names of the tasks.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.log_variance_T = nn.Parameter(torch.zeros(len(self.tasks)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar. That of a task without a loss in this step stays as it is."""
        scales = {name: self.log_variance_T[self.tasks.index(name)] for name in losses}
        return add(0.5 * (torch.exp(-scales[name]) * loss + scales[name]) for name, loss in losses.items())


class ImtlL(nn.Module):
    """A learned scale for each task, which brings all losses to 1 (IMTL-L, Liu et al., ICLR 2021).

    sum_t exp(s_t) L_t - s_t. At its optimum exp(s_t) L_t = 1.

    Args:
        tasks: Names of the tasks.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.log_scale_T = nn.Parameter(torch.zeros(len(self.tasks)))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar. That of a task without a loss in this step stays as it is."""
        scales = {name: self.log_scale_T[self.tasks.index(name)] for name in losses}
        return add(torch.exp(scales[name]) * loss - scales[name] for name, loss in losses.items())
