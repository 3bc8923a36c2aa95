"""Cross-stitch networks: a network a task, and units that mix what the networks have made of an image."""

# Shapes: T tasks, B images of all tasks in one pass, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.model import (
    BatchNormPolicy,
    Stagewise,
    StagewisePass,
    apply_batchnorm_policy,
    by_task,
    rows_of,
    stage_ends,
)


class CrossStitch(nn.Module):
    """A copy of the backbone for each task, a column; after each stage units mix the columns' maps of an image.

    Misra et al., Cross-stitch Networks for Multi-task Learning, CVPR 2016, arXiv:1604.03539, eq. 1, for T tasks and
    with one number for each pair of columns and stage: with x_u what column u's stage gives for an image, column t
    goes on with x̃_t = Σ_u α_tu x_u. The head of task t reads column t. Tasks here have their own images, and an
    image of task t is mixed with what all columns make of the same image: every image runs through all columns, so
    that a step and a prediction cost T times the backbone.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`); all columns begin with its weights.
        groups: Task names by pass: the tasks of a group always have images of one size.
        own: α_tt at the beginning, 0 to 1; the other columns have what is left to 1 in equal parts.
        batchnorm: What BatchNorm does where sizes differ, as in `network`. A column sees the images of all tasks.

    Raises:
        RecipeError: `own` is out of range, or the backbone cannot be cut between stages.
    """

    def __init__(
        self,
        backbone: Any,
        groups: Sequence[Sequence[str]],
        *,
        own: float = 0.9,
        batchnorm: BatchNormPolicy = "per-task",
    ) -> None:
        super().__init__()
        if not 0 <= own <= 1:
            raise RecipeError(f"own: must be 0 to 1, got {own:g}")
        self.groups = tuple(tuple(group) for group in groups)
        # Sorted: the order of groups is another where a run is loaded with other sizes.
        self.tasks = tuple(sorted(task for group in self.groups for task in group))
        self.features = backbone.features
        ends = stage_ends(backbone)
        self._mixed = sum(backbone.stages[: len(ends)], ())
        self.columns = by_task({task: Stagewise(deepcopy(backbone), ends) for task in self.tasks})
        self.units = nn.ModuleList(
            by_task({task: _Unit(len(self.tasks), number, own) for number, task in enumerate(self.tasks)}) for _ in ends
        )
        self._statistics = apply_batchnorm_policy(self.columns, len(self.groups), batchnorm)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` read their own columns of the images of another task, through which all columns run once.
        """
        maps: dict[str, list[Tensor]] = {}
        for index, group in enumerate(self.groups):
            present = {task: images[task] for task in group if task in images}
            if not present:
                continue
            counts = {task: len(own) for task, own in present.items()}
            passes = self._begun(torch.cat(list(present.values())))
            with self._statistics.of(index):
                with rows_of(counts):
                    handed = self._mixed_maps(passes)
                first = 0
                for lender, count in counts.items():
                    rows = slice(first, first := first + count)
                    with rows_of({lender: count}):
                        for task in (lender, *(task for task, other in (lenders or {}).items() if other == lender)):
                            maps[task] = passes[task].finish(handed[task], rows)
        return maps

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Those of all columns up to the last unit, and of the units before it.

        What the last unit gives to a task's column goes to that task's head alone.
        """
        ends = tuple(f"{name}." for name in self._mixed)
        for task in self.tasks:
            for name, parameter in self._column(task).backbone.named_parameters():
                if f"{name}.".startswith(ends):
                    yield parameter
        yield from self.units[:-1].parameters()

    def taken_over(self, name: str, tensor: Tensor, tasks: Sequence[str], like: Mapping[str, str]) -> Tensor:
        """A unit's numbers in a model of fewer tasks, for all columns of this one; other tensors as they are.

        A column that the model did not have is mixed with 0 into those of others, which give what they gave. A task
        that is `like` another has a copy of its column, and its unit that one's numbers with the two in each other's
        place.
        """
        part, _, rest = name.partition(".")
        if part != "units" or tensor.shape != (len(tasks),) or not set(tasks) <= set(self.tasks):
            return tensor
        task = rest.split(".")[1]
        numbers = dict(zip(sorted(tasks), tensor, strict=True))
        if task in like:
            numbers[task] = numbers.pop(like[task])
        return torch.stack([numbers.get(other, tensor.new_zeros(())) for other in self.tasks])

    def _column(self, task: str) -> Stagewise:
        column = self.columns[task]
        assert isinstance(column, Stagewise)
        return column

    def _begun(self, joined: Tensor) -> dict[str, StagewisePass]:
        """A pass of each column."""
        return {task: self._column(task).begin(joined) for task in self.tasks}

    def _mixed_maps(self, passes: Mapping[str, StagewisePass]) -> dict[str, Tensor]:
        """What the last unit gives, by task, once all columns have run up to it."""
        handed: dict[str, Tensor] = {}
        for stage, units in enumerate(self.units):
            assert isinstance(units, nn.ModuleDict)
            outputs = [passes[task].advance(stage, handed.get(task)) for task in self.tasks]
            handed = {task: unit(outputs) for task, unit in units.items()}
        return handed


class _Unit(nn.Module):
    """What one column goes on with, of what all have."""

    def __init__(self, tasks: int, number: int, own: float) -> None:
        super().__init__()
        # A vector for each task rather than a matrix of all: weight decay, which vectors have none of, would end
        # in mixing nothing.
        weight = torch.full((tasks,), (1 - own) / max(1, tasks - 1))
        weight[number] = own if tasks > 1 else 1.0
        self.weight = nn.Parameter(weight)

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """T outputs of one shape to their weighted sum."""
        mixed = outputs[0] * self.weight[0]
        for number, output in enumerate(outputs[1:], 1):
            mixed = mixed + output * self.weight[number]
        return mixed
