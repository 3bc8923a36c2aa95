"""Sharing of a backbone's first stages: what all tasks have in common is computed once, each has the rest to itself."""

# Shapes: B images of all tasks in one pass, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError

from ._batchnorm import freeze_statistics, split_statistics, use_group
from ._rows import rows_of
from ._sharing import BatchNormPolicy, by_task
from ._tape import Stopped, Tape, become, subclass


class Layers(nn.Module):
    """Tasks share the first stages of the backbone; each has the later ones, and what they learn, to itself.

    Works for any backbone whose `stages` say which modules belong together, without knowing how it calls them. The
    shared stages run once, on the images of all tasks of one size together (as `network` does with the whole
    backbone), and write down what each of their modules gives. Each task's own copy of the backbone then runs on
    that task's images; where it calls a shared module it reads the task's rows of what was written down. What was not
    (tables that serve all images, such as rotary positions) it computes, with the shared weights.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`); its weights are where every task's later stages start.
        groups: Task names by pass: the tasks of a group always have images of one size.
        shared: Stages that are shared, counted from the input; 0 shares nothing.
        batchnorm: What BatchNorm does in the shared stages where sizes differ, as in `network`. In a task's own
            stages it always sees that task alone, in training as in evaluation.

    Raises:
        RecipeError: `shared` is not a number of stages that leaves the tasks one of their own.
    """

    examples: ClassVar[dict[str, dict[str, Any]]] = {"first-stage": {"shared": 1}}

    def __init__(
        self,
        backbone: nn.Module,
        groups: Sequence[Sequence[str]],
        *,
        shared: int,
        batchnorm: BatchNormPolicy = "per-task",
    ) -> None:
        super().__init__()
        stages: Any = backbone.stages
        if not 0 <= shared < len(stages):
            raise RecipeError(
                f"shared: expected 0 to {len(stages) - 1} of the backbone's {len(stages)} stages, got {shared}; "
                "sharing=network shares all of them"
            )
        self.groups = tuple(tuple(group) for group in groups)
        self.features = backbone.features
        self._split = batchnorm == "per-task" and len(self.groups) > 1 and shared > 0
        self._tape = tape = Tape()
        common, own = sum(stages[:shared], ()), sum(stages[shared:], ())
        self.branches = by_task({task: deepcopy(backbone) for group in self.groups for task in group})
        lent = list(_weights(backbone, common))
        for branch in self.branches.values():
            _strip(branch, common)
            become(branch, common, _replaying, tape)
        _strip(backbone, own)
        become(backbone, own, _stopping, tape)
        become(backbone, common, _recording, tape)
        self.trunk = backbone if shared else None
        self._lent = [
            (backbone.get_submodule(owner), name, [branch.get_submodule(owner) for branch in self.branches.values()])
            for owner, name in lent
        ]
        self._lend()
        if self._split:
            split_statistics(backbone, len(self.groups))
        elif batchnorm == "frozen":
            freeze_statistics(self)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` look at the images of another task, through later stages of their own.
        """
        self._lend()
        trunk: Any = self.trunk
        maps: dict[str, list[Tensor]] = {}
        for index, group in enumerate(self.groups):
            present = [task for task in group if task in images]
            if not present:
                continue
            if self._split:
                use_group(trunk, index)
            if trunk is not None:
                joined = images[present[0]] if len(present) == 1 else torch.cat([images[task] for task in present])
                self._tape.begin(len(joined))
                with suppress(Stopped), rows_of({task: len(images[task]) for task in present}):
                    trunk(joined)
            first = 0
            for lender in present:
                viewers = [lender, *(task for task, other in (lenders or {}).items() if other == lender)]
                rows = slice(first, first := first + len(images[lender]))
                for task in viewers:
                    self._tape.rewind(rows, copy=len(viewers) > 1)
                    with rows_of({lender: len(images[lender])}):
                        maps[task] = list(self.branches[task](images[lender]))
            self._tape.clear()
        return maps

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the shared stages."""
        return iter(()) if self.trunk is None else self.trunk.parameters()

    def _lend(self) -> None:
        """Gives the branches the weights of the shared stages.

        Anew for each pass: moving to a device may have made new tensors of them.
        """
        for owner, name, borrowers in self._lent:
            value = getattr(owner, name)
            for borrower in borrowers:
                # Past nn.Module, which would register, count and save them a second time.
                object.__setattr__(borrower, name, value)


def _weights(module: nn.Module, names: Sequence[str]) -> list[tuple[str, str]]:
    """Parameters and buffers at or under these names: the name of the module that holds each, and its own."""
    ends = tuple(f"{name}." for name in names)
    held = ((owner, name) for owner, child in module.named_modules() for name in (*child._parameters, *child._buffers))
    return [(owner, name) for owner, name in held if f"{owner}.{name}.".removeprefix(".").startswith(ends)]


def _strip(module: nn.Module, names: Sequence[str]) -> None:
    """Takes away all parameters and buffers at or under these names."""
    for owner, name in _weights(module, names):
        holder = module.get_submodule(owner)
        holder._parameters.pop(name, None)
        if holder._buffers.pop(name, None) is not None and isinstance(holder, nn.modules.batchnorm._NormBase):
            # Or it would look for statistics in weights that are loaded from a file.
            holder.track_running_stats = False


@cache
def _recording(base: type[nn.Module]) -> Any:
    """A subclass of `base` that writes down what it gives, unless a module around it does."""

    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        tape = module._tape
        if tape.inside:
            return base.forward(module, *args, **kwargs)
        tape.inside = True
        output = base.forward(module, *args, **kwargs)
        tape.inside = False
        tape.write(module._name, (args, kwargs), output)
        return output

    return subclass(base, forward)


@cache
def _replaying(base: type[nn.Module]) -> Any:
    """A subclass of `base` that gives what was written down, where it was."""

    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        tape = module._tape
        return tape.read() if tape.holds(module._name) else base.forward(module, *args, **kwargs)

    return subclass(base, forward)


@cache
def _stopping(base: type[nn.Module]) -> Any:
    """A subclass of `base` at which the pass ends."""

    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        raise Stopped

    return subclass(base, forward)
