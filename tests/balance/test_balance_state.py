"""A balancer that is loaded goes on as the one that was saved."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from jacobians import random_rows

from mtframe.balance import DWA, FAMO, STCH, CAGrad, GradNorm, GradVac, ImtlL, NashMTL, Uncertainty

TASKS = ("a", "b", "c")


def reloaded(balancer: Any, other: Any) -> Any:
    """`other` with the state of `balancer`, through a file that takes no pickled objects."""
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def losses(step: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(step)
    values = (torch.rand(3) + 0.1) / (1 + torch.tensor([0.0, 0.1, 0.2]) * step)
    return dict(zip(TASKS, values.requires_grad_().unbind(), strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DWA(TASKS, period=3),
        lambda: STCH(TASKS, warmup=20),
        lambda: FAMO(TASKS),
        lambda: Uncertainty(TASKS),
        lambda: ImtlL(TASKS),
    ],
    ids=["dwa", "stch", "famo", "uncertainty", "imtl-l"],
)
@pytest.mark.parametrize("at", [0, 1, 7])
def test_balancers_of_losses_resume_exactly(make: Any, at: int) -> None:
    going = make()
    for step in range(at):
        going(losses(step))
    if hasattr(going, "parameters"):
        with torch.no_grad():
            next(iter(going.parameters())).add_(0.5)
    resumed = reloaded(going, make())
    for step in range(at, at + 8):
        assert resumed(losses(step)).item() == going(losses(step)).item()


@pytest.mark.parametrize(
    "make", [lambda: GradNorm(TASKS), lambda: GradVac(TASKS, beta=0.3)], ids=["gradnorm", "gradvac"]
)
@pytest.mark.parametrize("at", [0, 1, 7])
def test_balancers_of_gradients_resume_exactly(make: Any, at: int) -> None:
    def weights(balancer: Any, step: int) -> list[float]:
        rows = random_rows(3, seed=step)
        torch.manual_seed(step)
        found: list[float] = balancer.weigh(rows @ rows.T, torch.rand(3, dtype=torch.float64)).tolist()
        return found

    going = make()
    for step in range(at):
        weights(going, step)
    resumed = reloaded(going, make())
    for step in range(at, at + 5):
        assert weights(resumed, step) == weights(going, step)


@pytest.mark.parametrize("make", [CAGrad, NashMTL])
def test_failures_are_counted_on(make: Any) -> None:
    balancer = make()
    balancer.failures = 3
    assert reloaded(balancer, make()).failures == 3


def test_a_state_is_not_shared_with_what_it_was_loaded_from() -> None:
    first = DWA(TASKS, period=2)
    first(losses(0))
    second = DWA(TASKS, period=2)
    second.load_state_dict(first.state_dict())
    second(losses(1))
    third = DWA(TASKS, period=2)
    third(losses(0))
    assert first.state_dict()["history"][:2].tolist() == third.state_dict()["history"][:2].tolist()
