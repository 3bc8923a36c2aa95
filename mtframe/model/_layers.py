"""Sharing of a backbone's first stages: what all tasks have in common is computed once, each has the rest to itself."""

# Shapes: B images of all tasks in one pass, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError

from ._batchnorm import BatchNormPolicy, apply_batchnorm_policy, freeze_statistics
from ._passes import PerPass
from ._rows import rows_of
from ._sharing import by_task
from ._tape import Stopped, Tape, become


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
        self._tape = tape = PerPass[Tape]()
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
        self._statistics = apply_batchnorm_policy(backbone, len(self.groups), batchnorm)
        if batchnorm == "frozen":
            freeze_statistics(self.branches)
        self._lent = [
            (backbone.get_submodule(owner), name, [branch.get_submodule(owner) for branch in self.branches.values()])
            for owner, name in lent
        ]
        self._lend()

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` look at the images of another task, through later stages of their own.
        """
        self._lend()
        maps: dict[str, list[Tensor]] = {}
        for index, group in enumerate(self.groups):
            counts = {task: len(images[task]) for task in group if task in images}
            if not counts:
                continue
            tape = Tape(sum(counts.values()))
            with self._tape.use(tape), self._statistics.of(index):
                if self.trunk is not None:
                    own = [images[task] for task in counts]
                    with suppress(Stopped), rows_of(counts):
                        self.trunk(own[0] if len(own) == 1 else torch.cat(own))
                first = 0
                for lender, count in counts.items():
                    viewers = [lender, *(task for task, other in (lenders or {}).items() if other == lender)]
                    rows = slice(first, first := first + count)
                    for task in viewers:
                        tape.rewind(rows, copy=len(viewers) > 1)
                        with rows_of({lender: count}):
                            maps[task] = list(self.branches[task](images[lender]))
        return maps

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the shared stages."""
        return iter(()) if self.trunk is None else self.trunk.parameters()

    def __deepcopy__(self, memo: dict[int, Any]) -> Layers:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(deepcopy(vars(self), memo))
        for _, name, borrowers in copied._lent:
            for borrower in borrowers:
                # A traced module (torch.fx) registers in its copy what its graph uses, the lent weights too.
                borrower._parameters.pop(name, None)
                borrower._buffers.pop(name, None)
        return copied

    def _lend(self) -> None:
        """Gives the branches the weights of the shared stages where they have others.

        Looked at in each pass: moving to a device may have made new tensors of them. Passes of a model that stays as it
        is find nothing to do, and so may run at once.
        """
        for owner, name, borrowers in self._lent:
            # Statistics by group come whole, as no norm could use them; but those that see images are on the tape.
            value = getattr(owner, name)
            for borrower in borrowers:
                if vars(borrower).get(name) is not value:
                    # Past nn.Module, which would register, count and save them a second time.
                    vars(borrower)[name] = value


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


class _Taped(nn.Module):
    """A type for annotations: a module that has become one of a tape's."""

    _tape: PerPass[Tape]
    _name: str


def _recording(base: type[nn.Module]) -> Mapping[str, object]:
    """Writes down what it gives, unless a module around it does."""

    def forward(module: _Taped, *args: Any, **kwargs: Any) -> Any:
        tape = module._tape.get()
        if tape is None or tape.inside:
            return base.forward(module, *args, **kwargs)
        tape.inside = True
        output = base.forward(module, *args, **kwargs)
        tape.inside = False
        tape.write(module._name, (args, kwargs), output)
        return output

    return {"forward": forward}


def _replaying(base: type[nn.Module]) -> Mapping[str, object]:
    """Gives what was written down, where it was."""

    def forward(module: _Taped, *args: Any, **kwargs: Any) -> Any:
        tape = module._tape.get()
        if tape is not None and tape.holds(module._name):
            return tape.read()
        return base.forward(module, *args, **kwargs)

    return {"forward": forward}


def _stopping(base: type[nn.Module]) -> Mapping[str, object]:
    """Ends the pass."""

    def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        raise Stopped

    return {"forward": forward}
