"""BatchNorm where tasks whose images differ in size go through one backbone in separate passes.

In training each pass is normalised by its own batch; in evaluation all are normalised by the running
statistics. With one set of those, which is an average over the tasks, no task is evaluated with what it was
trained with. Two ways out: running statistics per group of tasks (`split_statistics`, `use_group`), or none
that move (`freeze_statistics`). Affine weights stay shared and trained in both.

Both give a module a subclass of its own class, as `torch.nn.utils.parametrize` does, so that every BatchNorm
(timm's fused BatchNormAct2d, SyncBatchNorm) keeps its forward pass, its type and its place in the state dict.
"""

# Shapes: G groups of tasks, C channels.

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._frozen import keep_evaluating

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def split_statistics(module: nn.Module, groups: int) -> None:
    """Gives each BatchNorm in `module` running statistics per group, in place; all start from those it has.

    Each of its buffers `running_mean` and `running_var` (C,) and `num_batches_tracked` () gains a leading
    axis of length `groups` in the state dict. Group 0 is in use until `use_group` chooses another. Convert to
    SyncBatchNorm and load pretrained weights before.

    Args:
        module: The network that runs once per group; `use_group` is called with the same one.
        groups: Number of separate passes, at least 1.

    Raises:
        ValueError: `groups` is below 1, or statistics in `module` are already split.
    """
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    if any("_selected" in vars(child) for child in module.modules()):
        raise ValueError("the BatchNorm statistics of this module are already split")
    selected = _Selected(groups)
    module._selected = selected  # type: ignore[assignment]
    for norm in batchnorms(module):
        norm._selected = selected  # type: ignore[assignment]
        for name in STATISTICS:
            norm._buffers[name] = torch.stack([norm._buffers[name]] * groups)  # type: ignore[list-item]
        kind: Any = type(norm)
        norm.__class__ = _per_group(kind)


def use_group(module: nn.Module, group: int) -> None:
    """Chooses the statistics that the next passes through `module` normalise with and update.

    Args:
        module: What `split_statistics` was called with, or a copy of it.
        group: 0 to one less than the number of groups.

    Raises:
        ValueError: the statistics of `module` are not split.
        IndexError: there is no such group.
    """
    selected = vars(module).get("_selected")
    if selected is None:
        raise ValueError("split_statistics(module, groups) comes before use_group(module, group)")
    if not 0 <= group < selected.groups:
        raise IndexError(f"group {group} is not one of 0..{selected.groups - 1}")
    selected.index = group


def freeze_statistics(module: nn.Module) -> None:
    """Makes each BatchNorm in `module` normalise with its running statistics, unchanged, in training too.

    For pretrained weights: statistics that never saw an image (means 0, variances 1) normalise nothing.
    """
    for norm in batchnorms(module):
        keep_evaluating(norm)


def batchnorms(module: nn.Module) -> Iterator[_BatchNorm]:
    """Every BatchNorm in `module` that keeps running statistics."""
    for child in module.modules():
        if isinstance(child, _BatchNorm) and child._buffers.get("running_mean") is not None:
            yield child


class _Selected:
    """The group in use: one object that a network's BatchNorms share, and that deepcopy copies with them."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.index = 0


def _row(name: str) -> property:
    # Taken anew each time: a kept view would lose its buffer in `.to(device)` and `deepcopy`.
    def row(norm: Any) -> Tensor:
        return norm._buffers[name][norm._selected.index]

    return property(row)


@cache
def _per_group(base: type[nn.Module]) -> Any:
    """A subclass of `base` that sees one row of its (G, C) statistics, and updates it in place."""
    return type(base.__name__, (base,), {"__module__": base.__module__, **{name: _row(name) for name in STATISTICS}})
