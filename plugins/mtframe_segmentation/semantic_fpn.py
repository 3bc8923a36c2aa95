"""The semantic branch of Panoptic FPN: a pyramid's levels, made one size and added up."""

# Shapes: B images, C classes, h' and w' of the finest level.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import FeaturePyramid, group_norm

# Of the pyramid, as in the paper; finer maps are left unused, and add little but memory.
_FINEST, _COARSEST = 4, 32


class SemanticFPN(nn.Module):
    """The semantic branch of Panoptic FPN (arXiv:1901.02446, section 3.1).

    Each level of a feature pyramid is brought to the finest one's size, doubling by doubling, with a 3 × 3 convolution,
    GroupNorm and ReLU before each; their sum gives the classes' scores.

    Args:
        features: The backbone's feature maps.
        info: Its `classes` are told apart.
        width: Channels of the pyramid and of the branch.
        strides: Pyramid levels in pixels. Default: the backbone's own from 4 to 32.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "mask"

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        info: DataInfo,
        *,
        width: int = 128,
        strides: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if width < 1:
            raise RecipeError(f"semantic-fpn head: width must be at least 1, got {width}")
        levels = tuple(strides) if strides else _default_strides(features)
        self.pyramid = FeaturePyramid(features, width, levels)
        self.branches = nn.ModuleList(_Branch(width, level) for level in range(len(levels)))
        self.score = nn.Conv2d(width, len(info.classes), 1)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """`logits` (B, C, h', w'), at the stride of the pyramid's finest level."""
        levels = self.pyramid(maps)
        merged = self.branches[0](levels[0], ())
        for number, branch in enumerate(self.branches[1:], 1):
            merged = merged + branch(levels[number], levels[number - 1 :: -1])
        return {"logits": self.score(merged)}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """`scores` (C, h', w') float for each image: probabilities of the classes."""
        return [{"scores": scores} for scores in outputs["logits"].float().softmax(1)]


class _Branch(nn.Module):
    """Brings one level to the finest one's size: convolution, norm, ReLU and resizing once for each finer level."""

    def __init__(self, width: int, finer: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(width) for _ in range(max(1, finer)))

    def forward(self, level: Tensor, finer: Sequence[Tensor]) -> Tensor:
        for number, block in enumerate(self.blocks):
            level = block(level)
            if finer:
                # To that level's own size, which with odd sizes is not twice the coarser one's.
                level = F.interpolate(level, size=finer[number].shape[-2:], mode="bilinear")
        return level


def _default_strides(features: Sequence[FeatureSpec]) -> tuple[int, ...]:
    own = sorted({feature.stride for feature in features})
    return tuple(stride for stride in own if _FINEST <= stride <= _COARSEST) or tuple(own[-1:])


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), group_norm(width), nn.ReLU(inplace=True))
