"""Modules of each task between the stages of a backbone that all tasks share."""

# Shapes: B images of all tasks in one pass, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtframe.model import BatchNormPolicy, Network, PerPass, StageEnd, by_task, current_rows, freeze, stage_ends

Trunk = Literal["shared", "frozen"]


class Inserted(nn.Module):
    """A backbone in which each stage's output goes through a module of the task whose image it is.

    Between stages and not on the maps alone: what a stage is given can then be other than what it was trained for,
    which is where adapters are worth most, and the maps are outputs of stages anyway. The backbone runs once on the
    images of all tasks of one size; at the end of a stage each task's module gets that task's rows. Tasks that look
    at another task's images need a pass of their own, since their modules change what the second stage gets.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`).
        groups: Task names by pass.
        make: A module for one end of a stage; its outputs have the shape of its inputs.
        trunk: `frozen` keeps the backbone as it is, BatchNorm statistics and all.
        batchnorm: As in `network`.

    Raises:
        RecipeError: The backbone cannot be cut between stages.
    """

    def __init__(
        self,
        backbone: Any,
        groups: Sequence[Sequence[str]],
        make: Callable[[StageEnd], nn.Module],
        *,
        trunk: Trunk,
        batchnorm: BatchNormPolicy,
    ) -> None:
        super().__init__()
        ends = stage_ends(backbone)
        self.network = Network(backbone, groups, batchnorm=batchnorm)
        if trunk == "frozen":
            freeze(self, ("network",))
        self.tasks = by_task({task: nn.ModuleList(make(end) for end in ends) for group in groups for task in group})
        self._turn = PerPass[_Turn]()
        for number, end in enumerate(ends):
            backbone.get_submodule(end.module).register_forward_hook(partial(self._insert, number, end))
        backbone.register_forward_pre_hook(self._begin)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task."""
        viewers = {lender: [lender] for lender in images}
        for task, lender in (lenders or {}).items():
            viewers[lender].append(task)
        maps: dict[str, list[Tensor]] = {}
        for number in range(max(map(len, viewers.values()), default=0)):
            turn = _Turn({lender: tasks[number] for lender, tasks in viewers.items() if number < len(tasks)})
            with self._turn.use(turn):
                found = self.network({lender: images[lender] for lender in turn.viewers})
            maps |= {task: found[lender] for lender, task in turn.viewers.items()}
        return maps

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the backbone."""
        return self.network.parameters()

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        if (turn := self._turn.get()) is not None:
            turn.calls.clear()

    def _insert(self, number: int, end: StageEnd, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        turn, counts = self._turn.get(), current_rows()
        if turn is None or counts is None:
            return None
        call = turn.calls[number] = turn.calls.get(number, -1) + 1
        if call != end.call:
            return None
        each = len(output) // sum(counts.values())
        parts = output.split([each * count for count in counts.values()])
        modules = [self._module(turn.viewers[lender], number) for lender in counts]
        done = [module(part) for module, part in zip(modules, parts, strict=True)]
        return done[0] if len(done) == 1 else torch.cat(done)

    def _module(self, task: str, number: int) -> nn.Module:
        modules = self.tasks[task]
        assert isinstance(modules, nn.ModuleList)
        return modules[number]


@dataclass
class _Turn:
    """One pass through the backbone's groups.

    Attributes:
        viewers: By task whose images go through, the task that looks at them.
        calls: The last call of each stage's last module, from 0, by the stage's number.
    """

    viewers: dict[str, str]
    calls: dict[int, int] = field(default_factory=dict)
