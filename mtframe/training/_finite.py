"""A loss or a gradient that is not finite stops a training before the optimiser uses it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mtframe.errors import TrainingError
from mtframe.model import MultiTaskModel

from ._terms import Terms, mean_terms


class FiniteCheck:
    """Checks all losses of a step and its gradient together: the device is waited for once a step.

    Args:
        model: Its parts show whose gradient is not finite.
        lr: The recipe's, for the advice.
        last: The folder of the last checkpoint, once there is one.
    """

    def __init__(self, model: MultiTaskModel, lr: float, last: Path) -> None:
        self._model, self._lr, self._last = model, lr, last

    def check(self, step: int, passes: Sequence[Terms], norm: Tensor) -> None:
        """Lets a step pass whose numbers are finite.

        Args:
            step: Its number, counted from 1.
            passes: The loss terms of each batch that it accumulates.
            norm: Of its gradient. A finite loss can have an infinite one, which would leave no finite weight.

        Raises:
            TrainingError: One is not finite; with what it is of, and what to try.
        """
        if all_finite([*(value for _, value in _each(passes)), norm]):
            return
        for what, value in _each(passes):
            if not value.isfinite():
                raise self._error(what, value, step)
        if not norm.isfinite():
            raise self._error(f"the norm of the gradient of {self._whose(passes)}", norm, step)

    def _error(self, what: str, value: Tensor, step: int) -> TrainingError:
        return TrainingError(
            f"{what} is {value.item()} at step {step}."
            + (f" The last checkpoint is {self._last}." if self._last.is_dir() else "")
            + f" Try a lower train.lr (now {self._lr}), a smaller train.clip_grad or train.precision=fp32"
        )

    def _whose(self, passes: Sequence[Terms]) -> str:
        """The tasks whose own gradients are not finite, and what the losses were."""
        model = self._model
        own = {task: [*model.heads[task].parameters(), *model.losses[task].parameters()] for task in model.tasks}
        tasks = [
            task
            for task, parameters in own.items()
            if any(p.grad is not None and not p.grad.isfinite().all() for p in parameters)
        ]
        terms = mean_terms(passes, model.tasks)
        losses = ", ".join(f"{task} {sum(named.values()):.4g}" for task, named in terms.items())
        whose = f"task {', '.join(tasks)}" if tasks else "what the tasks share"
        return f"{whose} (losses: {losses})"


def all_finite(values: Sequence[Tensor]) -> bool:
    """Whether these scalars, on one device or on the CPU, are finite; one transfer to the host."""
    device = values[0].device
    return bool(torch.cat([value.detach().reshape(1).float().to(device) for value in values]).isfinite().all())


def _each(passes: Sequence[Terms]) -> Iterator[tuple[str, Tensor]]:
    for terms in passes:
        for task, named in terms.items():
            for name, value in named.items():
                yield f"task {task}: loss {name!r}", value
