"""Checks of balancers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._check import checks, passes_first
from ._violation import expect

if TYPE_CHECKING:
    from ._subject import Subject

_LOSSES = {"faces": 2.0, "objects": 0.5, "scenes": 8.0}

# Which tasks take part in each of several steps in a row, and by how much their losses differ from those of the first.
_ALL = tuple(_LOSSES)
_STEPS = ((_ALL, 1.0), (_ALL, 1.0), (_ALL, 0.5), (_ALL[:1], 0.4), (_ALL[1:], 0.4), (_ALL, 2.0), (_ALL, 0.01))


def make(subject: Subject, tasks: Sequence[str] = _ALL) -> Any:
    """A balancer for some tasks, as it is before the first step."""
    return subject.build(tasks=tuple(tasks))


def finite(subject: Subject) -> None:
    """It makes one finite number of the tasks' losses, large and small."""
    for factor in (1.0, 1e3, 1e-3):
        total = make(subject)({task: torch.tensor(loss * factor, requires_grad=True) for task, loss in _LOSSES.items()})
        expect(isinstance(total, Tensor) and total.ndim == 0, f"expected one scalar, got {total!r}")
        expect(total.isfinite(), f"expected a finite number, got {total.item()} of losses times {factor:g}")


def pulls_on_every_task(subject: Subject) -> None:
    """Every task's loss gets a finite gradient above 0: no task is forgotten, none is made worse."""
    for task, weight in _weights(make(subject)).items():
        expect(0 < weight < float("inf"), f"the gradient of the loss of {task!r} is {weight:g}, expected one above 0")


def order_does_not_matter(subject: Subject) -> None:
    """Tasks in another order get the same weights."""
    first = _weights(make(subject))
    other = _weights(make(subject, tuple(reversed(_LOSSES))), tuple(reversed(_LOSSES)))
    for task, weight in first.items():
        same = abs(other[task] - weight) <= 1e-4 * weight
        expect(same, f"{task!r} weighs {weight:.4g}, and {other[task]:.4g} where tasks come in another order")


def unit_does_not_matter(subject: Subject) -> None:
    """All losses times ten leaves the tasks' weights relative to each other as they are."""
    first, scaled = _relative(make(subject)), _relative(make(subject), 10.0)
    for task, weight in first.items():
        same = abs(scaled[task] - weight) <= 1e-3
        expect(
            same, f"{task!r} has {weight:.4g} of all weight, and {scaled[task]:.4g} if all losses are ten times larger"
        )


def tasks_alone(subject: Subject) -> None:
    """A step of one task only, as schedules make it, gives a finite loss that pulls on that task."""
    for task in _LOSSES:
        weight = _weights(make(subject), (task,))[task]
        expect(0 < weight < float("inf"), f"in a step of {task!r} alone the gradient of its loss is {weight:g}")


def several_steps(subject: Subject) -> None:
    """One instance pulls on every task in each of several steps, whether losses fall, rise or stay, or a task rests."""
    for check in (pulls_on_every_task, tasks_alone):
        passes_first(check, subject)
    balancer = make(subject)
    for number, (tasks, factor) in enumerate(_STEPS, 1):
        for task, weight in _weights(balancer, tasks, factor).items():
            told = f"in step {number}, where losses are {factor:g} times those of the first"
            expect(0 < weight < float("inf"), f"{told}, the gradient of the loss of {task!r} is {weight:g}")


def _weights(balancer: Any, tasks: Sequence[str] = _ALL, factor: float = 1.0) -> dict[str, float]:
    """The derivative of the balancer's loss by each task's."""
    # Balancers may be random.
    torch.manual_seed(0)
    leaves = {task: torch.tensor(_LOSSES[task] * factor, requires_grad=True) for task in tasks}
    # Computed from something, as losses are: what keeps them cannot go back through them twice.
    balancer({task: leaf * 1 for task, leaf in leaves.items()}).backward()
    return {task: 0.0 if leaf.grad is None else leaf.grad.item() for task, leaf in leaves.items()}


def _relative(balancer: Any, factor: float = 1.0) -> dict[str, float]:
    weights = _weights(balancer, factor=factor)
    return {task: weight / sum(weights.values()) for task, weight in weights.items()}


CHECKS = checks(finite, pulls_on_every_task, order_does_not_matter, unit_does_not_matter, tasks_alone, several_steps)
