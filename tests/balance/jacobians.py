"""Gradients to try balancers on: a row a task."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor


def random_rows(tasks: int, parameters: int = 12, seed: int = 0) -> Tensor:
    """(tasks, parameters) float64."""
    return torch.randn(tasks, parameters, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weigh(balancer: Any, rows: Tensor, losses: Tensor | None = None) -> Tensor:
    """The balancer's weights, as the trainer asks for them."""
    return balancer.weigh(rows @ rows.T, torch.ones(len(rows), dtype=torch.float64) if losses is None else losses)


def update(balancer: Any, rows: Tensor, losses: Tensor | None = None) -> Tensor:
    """The gradient of the shared parameters that the balancer makes."""
    return weigh(balancer, rows, losses) @ rows


def independent(rows: Tensor) -> bool:
    """Whether the rows are linearly independent by far, so that solutions are unique and bounded."""
    values = torch.linalg.svdvals(rows / rows.norm(dim=1, keepdim=True))
    return len(values) == len(rows) and bool(values[-1] > 1e-2)


@st.composite
def jacobians(draw: st.DrawFn, scales: bool = False, smallest: int = 1) -> Tensor:
    """Gradients of 1 to 5 tasks, at times linearly dependent, and with `scales` of very different lengths."""
    tasks, parameters = draw(st.integers(smallest, 5)), draw(st.integers(1, 8))
    rows = random_rows(tasks, parameters, draw(st.integers(0, 10_000)))
    if scales:
        exponents = draw(st.lists(st.integers(-6, 6), min_size=tasks, max_size=tasks))
        rows = rows * torch.tensor([10.0**e for e in exponents], dtype=torch.float64)[:, None]
    return rows
