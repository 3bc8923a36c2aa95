"""Checks of balancers: of those that weigh losses, and of those that weigh gradients (`_weighing`)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtframe.kinds import KeepsState

from . import _weighing
from ._check import checks, passes_first
from ._subject import can
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
    """It makes one finite number of the tasks' losses, large and small; or a finite update of any gradients."""
    if _weighing.weighs(make(subject)):
        _weighing.finite(lambda: make(subject))
        return
    for factor in (1.0, 1e3, 1e-3):
        total = make(subject)({task: torch.tensor(loss * factor, requires_grad=True) for task, loss in _LOSSES.items()})
        expect(isinstance(total, Tensor) and total.ndim == 0, f"expected one scalar, got {total!r}")
        expect(total.isfinite(), f"expected a finite number, got {total.item()} of losses times {factor:g}")


def pulls_on_every_task(subject: Subject) -> None:
    """Every task's loss gets a finite gradient above 0; or, where gradients are orthogonal, every task gains."""
    for task, gain in _gains(make(subject)).items():
        expect(0 < gain < float("inf"), f"the gradient of the loss of {task!r} is {gain:g}, expected one above 0")


def order_does_not_matter(subject: Subject) -> None:
    """Tasks in another order get the same weights."""
    first = _gains(make(subject))
    other = _gains(make(subject, tuple(reversed(_LOSSES))), tuple(reversed(_LOSSES)))
    for task, gain in first.items():
        same = abs(other[task] - gain) <= 1e-4 * abs(gain)
        expect(same, f"{task!r} weighs {gain:.4g}, and {other[task]:.4g} where tasks come in another order")


def unit_does_not_matter(subject: Subject) -> None:
    """All losses times ten leaves the tasks' weights relative to each other as they are."""
    first, scaled = _relative(make(subject)), _relative(make(subject), 10.0)
    for task, weight in first.items():
        same = abs(scaled[task] - weight) <= 1e-3
        expect(
            same, f"{task!r} has {weight:.4g} of all weight, and {scaled[task]:.4g} if all losses are ten times larger"
        )


def tasks_alone(subject: Subject) -> None:
    """A step in which tasks rest, as schedules make it, is balanced among the others."""
    steps: list[tuple[str, ...]] = [(task,) for task in _ALL]
    if _weighing.weighs(make(subject)):
        passes_first(pulls_on_every_task, subject)
        # Where gradients are weighed, a step of one task is not balanced.
        steps = [_ALL[:2], _ALL[1:]]
    for tasks in steps:
        for task, gain in _gains(make(subject), tasks).items():
            when = f"in a step of {' and '.join(repr(name) for name in tasks)} alone"
            expect(0 < gain < float("inf"), f"{when} the gradient of the loss of {task!r} is {gain:g}")


def several_steps(subject: Subject) -> None:
    """One instance pulls on every task in each of several steps, whether losses fall, rise or stay, or a task rests."""
    for check in (pulls_on_every_task, tasks_alone):
        passes_first(check, subject)
    balancer = make(subject)
    for number, (tasks, factor) in enumerate(_STEPS, 1):
        for task, gain in _gains(balancer, tasks, factor).items():
            when = f"in step {number}, where losses are {factor:g} times those of the first"
            expect(0 < gain < float("inf"), f"{when}, the gradient of the loss of {task!r} is {gain:g}")


def resumes(subject: Subject) -> None:
    """What it remembers is in `state_dict()`, of tensors, numbers and text: a new one that loads it goes on."""
    passes_first(several_steps, subject)
    going, resumed = make(subject), make(subject)
    for tasks, factor in _STEPS[:5]:
        _gains(going, tasks, factor)
    if can(going, KeepsState):
        file = io.BytesIO()
        torch.save(going.state_dict(), file)
        file.seek(0)
        # Nothing is unpickled from a checkpoint.
        resumed.load_state_dict(torch.load(file, weights_only=True))
    expected, found = _gains(going, factor=0.3), _gains(resumed, factor=0.3)
    for task, gain in expected.items():
        when = "after a resumed run's state was loaded" if can(going, KeepsState) else "without a state_dict()"
        expect(found[task] == gain, f"{when}, {task!r} weighs {found[task]:.6g} where it weighed {gain:.6g}")


def _gains(balancer: Any, tasks: Sequence[str] = _ALL, factor: float = 1.0) -> dict[str, float]:
    """By task, the derivative of the balancer's loss by the task's; or what the update takes of its own gradient."""
    # Balancers may be random.
    torch.manual_seed(0)
    losses = {task: _LOSSES[task] * factor for task in tasks}
    return _weighing.gains(balancer, losses) if _weighing.weighs(balancer) else _derivatives(balancer, losses)


def _derivatives(balancer: Any, losses: Mapping[str, float]) -> dict[str, float]:
    leaves = {task: torch.tensor(loss, requires_grad=True) for task, loss in losses.items()}
    # Computed from something, as losses are: what keeps them cannot go back through them twice.
    balancer({task: leaf * 1 for task, leaf in leaves.items()}).backward()
    return {task: 0.0 if leaf.grad is None else leaf.grad.item() for task, leaf in leaves.items()}


def _relative(balancer: Any, factor: float = 1.0) -> dict[str, float]:
    gains = _gains(balancer, factor=factor)
    return {task: gain / sum(gains.values()) for task, gain in gains.items()}


CHECKS = checks(
    finite, pulls_on_every_task, order_does_not_matter, unit_does_not_matter, tasks_alone, several_steps, resumes
)
