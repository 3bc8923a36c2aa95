"""What a balancer that weighs gradients makes of some, for the checks of balancers."""

# Shapes: T tasks, P parameters.

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtframe.kinds import GradientBalancer, GradientCombiner, KnowsPresent

from ._violation import expect

_PARAMETERS = 48

# A task's gradient is its loss along parameters of its own.
_PLACES = {"faces": slice(0, 16), "objects": slice(16, 32), "scenes": slice(32, 48)}


def weighs(balancer: object) -> bool:
    """Whether it weighs gradients, not losses."""
    return isinstance(balancer, GradientBalancer | GradientCombiner)


def gains(balancer: Any, losses: Mapping[str, float]) -> dict[str, float]:
    """By task, the update's part along the task's gradient, where gradients are orthogonal and as long as losses."""
    rows = torch.zeros(len(losses), _PARAMETERS)
    for row, (task, loss) in zip(rows, losses.items(), strict=True):
        row[_PLACES[task]] = loss / 4
    found = update(balancer, rows, losses)
    return {task: (found @ row / row.dot(row)).item() for task, row in zip(losses, rows, strict=True)}


def finite(make: Callable[[], Any]) -> None:
    """Gradients large and small, of 0, equal, opposite and in conflict give a finite update, and are left alone."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, _PARAMETERS, generator=generator)
    units = torch.tensor([[1e-9], [1.0], [1e9]])
    same = drawn[:1].repeat(3, 1)
    cases = {
        "in conflict": drawn - drawn.mean(0) * 1.2,
        "1e9 times smaller": drawn * 1e-9,
        "1e9 times larger": drawn * 1e9,
        "of very different length": drawn * units,
        "equal": same,
        "opposite": same * torch.tensor([[1.0], [-1.0], [1.0]]),
        "of which one is 0": drawn * torch.tensor([[1.0], [0.0], [1.0]]),
        "that are all 0": drawn * 0,
    }
    losses = dict.fromkeys(_PLACES, 1.0)
    for case, rows in cases.items():
        balancer = make()
        given = _given(balancer, rows)
        before = given.clone()
        found = _answer(balancer, given, losses)
        case = f"with gradients {case}"
        expect(found.dtype == given.dtype, f"it gives {found.dtype} {case}, expected {given.dtype}")
        expect(found.isfinite().all(), f"what it gives is not finite {case}")
        expect(torch.equal(given, before), f"it changes the tensor that it is given {case}")


def update(balancer: Any, rows: Tensor, losses: Mapping[str, float]) -> Tensor:
    """(P,) what becomes of the (T, P) gradients, as in a training step."""
    found = _answer(balancer, _given(balancer, rows), losses)
    return found if isinstance(balancer, GradientCombiner) else (found.double() @ rows.double()).to(rows.dtype)


def _given(balancer: Any, rows: Tensor) -> Tensor:
    """What the balancer is asked about: the gradients (T, P), or their inner products (T, T)."""
    return rows.clone() if isinstance(balancer, GradientCombiner) else rows.double() @ rows.double().T


def _answer(balancer: Any, given: Tensor, losses: Mapping[str, float]) -> Tensor:
    """Weights (T,), or the combined gradient (P,)."""
    if isinstance(balancer, KnowsPresent):
        balancer.present = tuple(losses)
    combines = isinstance(balancer, GradientCombiner)
    name, ask, shape = (
        ("combine", balancer.combine, given.shape[1:]) if combines else ("weigh", balancer.weigh, given.shape[:1])
    )
    found: Any = ask(given, torch.tensor(list(losses.values()), dtype=torch.float64))
    right = isinstance(found, Tensor) and found.shape == shape
    shown = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
    expect(right, f"{name} of {len(losses)} tasks gives {shown}, expected a tensor of shape {tuple(shape)}")
    answer: Tensor = found
    return answer
