"""BatchNorm where tasks whose images differ in size go through one backbone in separate passes.

In training each pass is normalised by its own batch; in evaluation all are normalised by the running
statistics. With one set of those, which is an average over the tasks, no task is evaluated with what it was
trained with. Two ways out: running statistics per group of tasks (`split_statistics`), or none that move
(`freeze_statistics`). Affine weights stay shared and trained in both.

Both give a module a subclass of its own class, as `torch.nn.utils.parametrize` does, so that every BatchNorm
(timm's fused BatchNormAct2d, SyncBatchNorm) keeps its forward pass, its type and its place in the state dict.
"""

# Shapes: G groups of tasks, C channels.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._frozen import keep_evaluating
from ._passes import PerPass
from ._roles import take_role

BatchNormPolicy = Literal["per-task", "shared", "frozen"]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# In place of a group's number: statistics that nobody reads, for a backward pass that computes activations again.
_NOBODYS = -1


class GroupStatistics:
    """Which group's running statistics the BatchNorms of a network use: each pass says it for itself.

    Args:
        groups: Number of groups.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self._group = PerPass[int]()

    def of(self, group: int) -> AbstractContextManager[None]:
        """Within it, passes through the network normalise with this group's statistics, and update them.

        Args:
            group: 0 to one less than the number of groups.

        Raises:
            IndexError: There is no such group.
        """
        if not 0 <= group < self.groups:
            raise IndexError(f"group {group} is not one of 0..{self.groups - 1}")
        return self._group.use(group)


def apply_batchnorm_policy(module: nn.Module, groups: int, policy: BatchNormPolicy) -> GroupStatistics:
    """Does with each BatchNorm in `module`, in place, what a sharing scheme's option `batchnorm` asks for.

    Args:
        module: The network that runs once per group.
        groups: Number of separate passes.
        policy: `per-task`, `shared` or `frozen`, as of `Network`.

    Returns:
        What each pass enters, `with statistics.of(group)`, whatever the policy.
    """
    if policy == "per-task" and groups > 1:
        return split_statistics(module, groups)
    if policy == "frozen":
        freeze_statistics(module)
    return GroupStatistics(groups)


def split_statistics(module: nn.Module, groups: int) -> GroupStatistics:
    """Gives each BatchNorm in `module` running statistics per group, in place; all start from those it has.

    Each of its buffers `running_mean` and `running_var` (C,) and `num_batches_tracked` () gains a leading
    axis of length `groups` in the state dict. Convert to SyncBatchNorm and load pretrained weights before.

    In evaluation `module` then runs within `statistics.of(group)` alone. In training it runs outside too, normalised by
    the batch as ever, and updates nothing: so a backward pass that computes activations again (activation
    checkpointing) does not count a batch twice.

    Args:
        module: The network that runs once per group.
        groups: Number of separate passes, at least 1.

    Raises:
        ValueError: `groups` is below 1, or statistics in `module` are already split.
    """
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    statistics, norms = GroupStatistics(groups), list(batchnorms(module))
    if any(means.dim() != 1 for norm in norms if (means := norm.running_mean) is not None):
        raise ValueError("the BatchNorm statistics of this module are already split")
    for norm in norms:
        for name in STATISTICS:
            if (buffer := norm._buffers[name]) is not None:
                norm._buffers[name] = torch.stack([buffer] * groups)
        vars(norm)["_group"] = statistics._group
        take_role(norm, _per_group)
    return statistics


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


class _Grouped(_BatchNorm):
    """A type for annotations: a BatchNorm whose statistics are split."""

    _group: PerPass[int]


def _row(name: str) -> property:
    # Taken anew each time: a kept view would lose its buffer in `.to(device)` and `deepcopy`.
    def row(norm: _Grouped) -> Tensor | None:
        rows, group = norm._buffers[name], norm._group.get()
        if rows is None or group is None:
            return rows
        return torch.ones_like(rows[0]) if group == _NOBODYS else rows[group]

    return property(row)


def _per_group(base: type[nn.Module]) -> Mapping[str, object]:
    """Sees one row of its (G, C) statistics, and updates it in place."""

    def forward(norm: _Grouped, *args: Any, **kwargs: Any) -> Any:
        if norm._group.get() is not None:
            return base.forward(norm, *args, **kwargs)
        if norm.training:
            with norm._group.use(_NOBODYS):
                return base.forward(norm, *args, **kwargs)
        raise RuntimeError(
            "this BatchNorm keeps statistics by group of tasks, and nothing says of which group this pass is: run the "
            "network within `with statistics.of(group)`, of what split_statistics returned. Activation checkpointing "
            "of layers in evaluation mode runs them outside of it, and needs sharing.batchnorm=shared"
        )

    return {"forward": forward, **{name: _row(name) for name in STATISTICS}}
