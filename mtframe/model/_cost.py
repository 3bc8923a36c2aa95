"""What a model costs: parameters that tasks share and that are a task's own, and operations for an image."""

# Shapes: S pixels of an image's side.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ._multitask import MultiTaskModel


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What one task takes.

    Attributes:
        shared: Parameters of the sharing scheme, backbone and all, that outputs of other tasks depend on too.
        own: Those of the sharing scheme that outputs of no other task depend on.
        head: Parameters of its head.
        loss: Parameters of its loss, such as class centres, which only training needs.
        flops: Operations of a pass over one image of its size that it alone is asked about.
    """

    shared: int
    own: int
    head: int
    loss: int
    flops: int

    @property
    def total(self) -> int:
        """Parameters that an answer for this task takes."""
        return self.shared + self.own + self.head


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model takes.

    Attributes:
        tasks: By task.
        parameters: Of the whole model, without losses.
        trained: How many of these are not frozen.
        passes: Operations of each of the passes that were asked for, over one image.
    """

    tasks: dict[str, TaskCost]
    parameters: int
    trained: int
    passes: tuple[int, ...]


def cost_of(model: MultiTaskModel, sizes: Mapping[str, int], passes: Sequence[tuple[Sequence[str], int]] = ()) -> Cost:
    """Counts the parameters and the operations of a model in evaluation, without memory or compute where that works.

    Which parameters a task takes is found by differentiating its outputs, so any sharing scheme will do. Operations
    are those of convolutions, matrix products and attention (torch's FlopCounterMode), a multiplication and an
    addition counting as two.

    Args:
        model: Is not changed.
        sizes: Pixels S of the square images, by task.
        passes: Passes that several tasks share: which tasks, and pixels of the side of their common images.
    """
    try:
        return _Counter(deepcopy(model).to("meta")).cost(model, sizes, passes)
    except Exception:
        # Some networks compute with values, which the meta device has not; on the CPU what is wrong shows.
        return _Counter(deepcopy(model).cpu()).cost(model, sizes, passes)


class _Counter:
    """Runs a copy of a model that may be changed."""

    def __init__(self, copy: MultiTaskModel) -> None:
        self.model = copy.eval().requires_grad_(True)

    def cost(
        self, original: MultiTaskModel, sizes: Mapping[str, int], passes: Sequence[tuple[Sequence[str], int]]
    ) -> Cost:
        """The cost of the model that this is a copy of."""
        reached = {task: self._reached(task, size) for task, size in sizes.items()}
        tasks = {task: self._task(task, size, reached) for task, size in sizes.items()}
        parameters = [*original.sharing.parameters(), *original.heads.parameters()]
        shared = tuple(self._flops(first, size, others) for (first, *others), size in passes)
        return Cost(tasks, _count(parameters), _count([p for p in parameters if p.requires_grad]), shared)

    def _task(self, task: str, size: int, reached: Mapping[str, set[Tensor]]) -> TaskCost:
        others = set().union(*(found for other, found in reached.items() if other != task))
        return TaskCost(
            shared=_count(reached[task] & others),
            own=_count(reached[task] - others),
            head=_count(self.model.heads[task].parameters()),
            loss=_count(self.model.losses[task].parameters()),
            flops=self._flops(task, size, ()),
        )

    @torch.enable_grad()
    def _reached(self, task: str, size: int) -> set[Tensor]:
        outputs = self.model({task: self._images(size)})[task].values()
        total = torch.stack([output.float().sum() for output in outputs if output.requires_grad]).sum()
        parameters = list(self.model.sharing.parameters())
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        return {p for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}

    @torch.no_grad()
    def _flops(self, task: str, size: int, others: Sequence[str]) -> int:
        with FlopCounterMode(display=False) as counter:
            self.model({task: self._images(size)}, dict.fromkeys(others, task))
        return int(counter.get_total_flops())

    def _images(self, size: int) -> Tensor:
        return torch.zeros(1, 3, size, size, device=self.model.mean.device)


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)
