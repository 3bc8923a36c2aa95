"""Multi-task attention: each task looks at what it needs of maps that all tasks share."""

# Shapes: B images of a task, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import BatchNormPolicy, Network, by_task, group_norm, rows_of


class MTAN(nn.Module):
    """Every task runs through the whole backbone, in one pass, and has attention modules of its own over its maps.

    Liu, Johns, Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019, arXiv:1803.10704, eqs. 1 and 2: of
    the shared map p_j of level j, finest first, task t gets

        â_tj = a_tj ⊙ p_j,        a_tj = h_tj(g_tj([p_j ; f_j(â_t,j-1)])),

    with g and h convolutions of 1 × 1, h ending in a sigmoid, and f, which tasks share, one of 3 × 3 with max pooling
    to the next level's size; the first level has p_1 alone. Where the paper's network has a block of two convolutions
    a level, whose first one the attention is made of and whose second one it masks, any backbone has its feature maps,
    and both are p_j. GroupNorm stands for the paper's BatchNorm, since a task's own batch may be two images.

    Args:
        backbone: A backbone (see `mtframe.kinds.Backbone`).
        groups: Task names by pass: the tasks of a group always have images of one size.
        width: Channels between g and h as a part of the level's, above 0 and at most 4.
        batchnorm: What BatchNorm does where sizes differ, as in `network`.

    Raises:
        RecipeError: `width` is out of range.
    """

    def __init__(
        self,
        backbone: Any,
        groups: Sequence[Sequence[str]],
        *,
        width: float = 0.25,
        batchnorm: BatchNormPolicy = "per-task",
    ) -> None:
        super().__init__()
        if not 0 < width <= 4:
            raise RecipeError(f"width: must be above 0 and at most 4, got {width:g}")
        self.trunk = Network(backbone, groups, batchnorm=batchnorm)
        self.features: tuple[FeatureSpec, ...] = backbone.features
        channels = [spec.channels for spec in self.features]
        tasks = [task for group in groups for task in group]
        self.attention = by_task({task: _masks(channels, width) for task in tasks})
        self.onward = nn.ModuleList(_conv(before, own, 3) for before, own in pairwise(channels))

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        """Normalised images (B, 3, H, W) by task to one (B, C, H / stride, W / stride) map per feature, by task.

        Tasks in `lenders` look at another task's shared maps with attention of their own.
        """
        found: dict[str, list[Tensor]] = {}
        for task, maps in self.trunk(images, lenders).items():
            with rows_of({(lenders or {}).get(task, task): len(maps[0])}):
                found[task] = self._attended(self.attention[task], maps)
        return found

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the backbone, and of what leads from one level's attention to the next."""
        yield from self.trunk.parameters()
        yield from self.onward.parameters()

    def _attended(self, masks: Any, maps: Sequence[Tensor]) -> list[Tensor]:
        attended: list[Tensor] = []
        for level, shared in enumerate(maps):
            seen: Any = shared
            if level:
                before = self.onward[level - 1](attended[-1])
                seen = torch.cat([shared, adaptive_max_pool2d(before, shared.shape[-2:])], 1)
            attended.append(masks[level](seen) * shared)
        return attended


def _masks(channels: Sequence[int], width: float) -> nn.ModuleList:
    """One task's attention modules, a level each."""
    return nn.ModuleList(
        _mask(own + (own if level else 0), max(8, round(width * own)), own) for level, own in enumerate(channels)
    )


def _conv(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, 1, kernel // 2, bias=False), group_norm(width), nn.ReLU(inplace=True)
    )


def _mask(channels: int, width: int, own: int) -> nn.Sequential:
    """g and h of the paper."""
    return nn.Sequential(
        *_conv(channels, width, 1), nn.Conv2d(width, own, 1, bias=False), group_norm(own), nn.Sigmoid()
    )
