"""Task adapters and FiLM: a backbone that all tasks share, and little that is a task's own between its stages."""

# Shapes: B images of a task, C channels, H height, W width, N tokens.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import BatchNormPolicy, StageEnd

from ._inserted import Inserted, Trunk


class Adapters(nn.Module):
    """The backbone is shared; after each stage a task adds what a small network of its own makes of the maps.

    x + U_t ReLU(D_t x), a place of the map at a time: the residual adapters of Rebuffi, Bilen, Vedaldi,
    arXiv:1705.08045 (one matrix and BatchNorm there), with the bottleneck of Houlsby et al., arXiv:1902.00751. U begins
    at 0, so training begins as with `network`.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`).
        groups: Task names by pass: the tasks of a group always have images of one size.
        width: Channels between D and U as a part of the stage's, above 0 and at most 4.
        trunk: `shared`: the backbone is trained with all tasks. `frozen`: it stays as it came, weights and BatchNorm
            statistics, and a task's adapters and head are all that is trained; only sensible for a pretrained one.
        batchnorm: What BatchNorm does where sizes differ, as in `network`.

    Raises:
        RecipeError: `width` is out of range, or the backbone cannot be cut between stages.
    """

    def __init__(
        self,
        backbone: Any,
        groups: Sequence[Sequence[str]],
        *,
        width: float = 0.125,
        trunk: Trunk = "shared",
        batchnorm: BatchNormPolicy = "per-task",
    ) -> None:
        super().__init__()
        if not 0 < width <= 4:
            raise RecipeError(f"width: must be above 0 and at most 4, got {width:g}")
        self.features: tuple[FeatureSpec, ...] = backbone.features
        self.inserted = Inserted(backbone, groups, lambda end: _Adapter(end, width), trunk=trunk, batchnorm=batchnorm)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` run through the backbone once more, with adapters of their own.
        """
        maps: dict[str, list[Tensor]] = self.inserted(images, lenders)
        return maps

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the backbone."""
        return self.inserted.shared_parameters()


class FiLM(nn.Module):
    """The backbone is shared; after each stage a task scales and shifts each channel of the maps.

    (1 + γ_t) ⊙ x + β_t, a number a channel: feature-wise linear modulation, Perez et al., AAAI 2018, arXiv:1709.07871,
    eq. 2, conditioned on the task alone, so that γ and β are themselves what is learned. Both begin at 0, so training
    begins as with `network`.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`).
        groups: Task names by pass: the tasks of a group always have images of one size.
        trunk: `shared`: the backbone is trained with all tasks. `frozen`: it stays as it came, weights and BatchNorm
            statistics, and a task's scales, shifts and head are all that is trained; only sensible for a pretrained
            one.
        batchnorm: What BatchNorm does where sizes differ, as in `network`.

    Raises:
        RecipeError: The backbone cannot be cut between stages.
    """

    def __init__(
        self,
        backbone: Any,
        groups: Sequence[Sequence[str]],
        *,
        trunk: Trunk = "shared",
        batchnorm: BatchNormPolicy = "per-task",
    ) -> None:
        super().__init__()
        self.features: tuple[FeatureSpec, ...] = backbone.features
        self.inserted = Inserted(backbone, groups, _Modulation, trunk=trunk, batchnorm=batchnorm)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` run through the backbone once more, with scales and shifts of their own.
        """
        maps: dict[str, list[Tensor]] = self.inserted(images, lenders)
        return maps

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the backbone."""
        return self.inserted.shared_parameters()


class _Adapter(nn.Module):
    """Adds a bottleneck of the channels, zero at first; (B, C, H, W), (B, H, W, C) or (B, N, C)."""

    def __init__(self, end: StageEnd, width: float) -> None:
        super().__init__()
        self.axis = end.axis
        between = max(4, round(width * end.channels))
        self.down = nn.Linear(end.channels, between)
        self.up = nn.Linear(between, end.channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        # What is laid out channels_last has its channels last already.
        added = self.up(relu(self.down(x.movedim(self.axis, -1))))
        return x + added.movedim(-1, self.axis)


class _Modulation(nn.Module):
    """Scales and shifts channels, not at all at first; (B, C, H, W), (B, H, W, C) or (B, N, C)."""

    def __init__(self, end: StageEnd) -> None:
        super().__init__()
        self.trailing = (1, 1) if end.axis == 1 else ()
        self.gamma = nn.Parameter(torch.zeros(end.channels))
        self.beta = nn.Parameter(torch.zeros(end.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        gamma, beta = (p.to(x.dtype).view(-1, *self.trailing) for p in (self.gamma, self.beta))
        return torch.addcmul(x + beta, x, gamma)
