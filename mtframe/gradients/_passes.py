"""A forward pass whose shared part is differentiated task by task.

The pass is cut at the feature maps: heads and losses run their usual backward pass and stop there. From the maps on,
what is shared is gone through for each task, either by the rows of the batch (one backward pass for all tasks, see
`_row_parameters`) or with a backward pass per task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ._row_parameters import Attribution, StandIn, check_plain

# By name of a shared parameter; None where the task does not reach it.
Gradients = dict[str, Tensor | None]


class Cut:
    """A forward hook of the sharing scheme: keeps the maps by task, and gives heads leaves of the same values."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[Tensor]] = {}
        self.leaves: dict[str, list[Tensor]] = {}

    def __call__(self, module: nn.Module, inputs: Any, maps: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
        check_plain(maps)
        self.outputs = {task: list(of_task) for task, of_task in maps.items()}
        self.leaves = {task: [m.detach().requires_grad_() for m in of_task] for task, of_task in maps.items()}
        return self.leaves

    def scale(self, weights: Mapping[str, float]) -> None:
        """Multiplies the gradient that each task's head has left at its maps."""
        for task, weight in weights.items():
            for leaf in self.leaves[task]:
                leaf.grad = None if leaf.grad is None else leaf.grad * weight

    def pairs(self, tasks: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """The maps of these tasks that what is shared has a part in, each with the gradient that its head has left."""
        return [
            (output, leaf.grad)
            for task in tasks
            for output, leaf in zip(self.outputs[task], self.leaves[task], strict=True)
            if leaf.grad is not None and output.requires_grad
        ]

    def pull(self, tasks: Sequence[str], *, keep: bool = False) -> None:
        """The backward pass of these tasks' gradients through what is shared; `keep` it for another one."""
        if pairs := self.pairs(tasks):
            torch.autograd.backward([p[0] for p in pairs], [p[1] for p in pairs], retain_graph=keep)


@contextmanager
def cut_at_maps(sharing: nn.Module) -> Iterator[Cut]:
    """Within it, heads are given maps at which their backward pass ends."""
    cut = Cut()
    handle = sharing.register_forward_hook(cut)
    try:
        yield cut
    finally:
        handle.remove()


class TaskPass(Protocol):
    """A forward pass that was cut at the maps, once heads and losses have run their backward pass.

    Attributes:
        cut: The maps, with the gradients that heads have left there.
        losses: By task, attached to their graphs.
    """

    cut: Cut
    losses: Mapping[str, Tensor]

    def gradients(self, *, keep: bool = False) -> dict[str, Gradients]:
        """Each task's gradient of what is shared, once; `keep` the graph for `derivatives`."""
        ...

    def derivatives(self) -> dict[str, Gradients]:
        """Each task's ∂L_t/∂θ, which differs from its gradient where BatchNorm mixes rows. After `gradients`."""
        ...


class PassByTask:
    """Takes a backward pass per task, which gives ∂L_t/∂θ whatever the layers do."""

    def __init__(self, cut: Cut, losses: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
        self.cut, self.losses = cut, losses
        self._parameters = parameters
        self._found: dict[str, Gradients] = {}

    def gradients(self, *, keep: bool = False) -> dict[str, Gradients]:
        """Each task's gradient, from a backward pass of its own through the one graph."""
        before = {name: _taken(parameter) for name, parameter in self._parameters.items()}
        for number, task in enumerate(self.cut.leaves, 1):
            self.cut.pull([task], keep=number < len(self.cut.leaves))
            self._found[task] = {name: _taken(parameter) for name, parameter in self._parameters.items()}
        for name, gradient in before.items():
            self._parameters[name].grad = gradient
        return self._found

    def derivatives(self) -> dict[str, Gradients]:
        """The gradients themselves."""
        return self._found


class PassByRows:
    """Takes one backward pass for all tasks that have images of their own, and tells them apart by their rows.

    Args:
        cut: Where the heads' backward pass ends.
        losses: By task, attached to their graphs.
        stands: What stands in for the shared parameters.
        lenders: Tasks without images of their own, each with the task whose images it uses.
        mixed: Whether BatchNorm normalises the rows of several tasks together.
    """

    def __init__(
        self,
        cut: Cut,
        losses: Mapping[str, Tensor],
        attribution: Attribution,
        stands: Mapping[str, StandIn],
        lenders: Mapping[str, str],
        *,
        mixed: bool,
    ) -> None:
        self.cut, self.losses = cut, losses
        self._attribution, self._stands, self._mixed = attribution, stands, mixed
        self._viewers = {
            owner: [owner, *(task for task in lenders if lenders[task] == owner)] for owner in attribution.slots
        }
        self._found: dict[str, Gradients] = {}

    def gradients(self, *, keep: bool = False) -> dict[str, Gradients]:
        """One pass for all tasks with images of their own, one for a second task on each of these, and so on."""
        count = max(len(tasks) for tasks in self._viewers.values())
        for number in range(count):
            viewing = {owner: tasks[number] for owner, tasks in self._viewers.items() if number < len(tasks)}
            self.cut.pull(list(viewing.values()), keep=(keep and self._mixed) or number + 1 < count)
            for owner, task in viewing.items():
                slot = self._attribution.slots[owner]
                self._found[task] = {name: _taken(stand.leaves[slot]) for name, stand in self._stands.items()}
            for stand in self._stands.values():
                # Zeros, of tasks that this pass was not of.
                for leaf in stand.leaves:
                    leaf.grad = None
        return self._found

    def derivatives(self) -> dict[str, Gradients]:
        """The gradients themselves, or of a pass that mixes rows a further backward pass a task through all of them."""
        if not self._mixed:
            return self._found
        self._attribution.through_all_rows = True
        return {task: self._derivative(task) for task in self.cut.leaves}

    def _derivative(self, task: str) -> Gradients:
        pairs = self.cut.pairs([task])
        if not pairs:
            return dict.fromkeys(self._stands)
        leaves = [leaf for stand in self._stands.values() for leaf in stand.leaves]
        outputs, gradients = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, leaves, gradients, retain_graph=True, allow_unused=True))
        return {name: added([next(found) for _ in stand.leaves]) for name, stand in self._stands.items()}


def added(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """The sum, in memory of its own; None if all are zero."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return None
    total = present[0].clone()
    for gradient in present[1:]:
        total.add_(gradient)
    return total


def _taken(tensor: Tensor) -> Tensor | None:
    gradient, tensor.grad = tensor.grad, None
    return gradient
