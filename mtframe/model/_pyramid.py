"""Feature pyramids: from a backbone's maps to the strides that heads ask for."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec

Norm = Literal["group", "batch"]


class FeaturePyramid(nn.Module):
    """Feature Pyramid Network (arXiv:1612.03144): each map gets the context of the coarser ones, top down.

    An output comes from the backbone map of its stride, else from the next finer one (or the finest),
    resized. Outputs coarser than all maps come from the level before by 3 × 3 convolutions of stride 2, as
    FCOS makes P6 and P7 (arXiv:1904.01355, sec. 3.2). Maps finer than any output needs are not used and get
    no weights.

    Args:
        features: The backbone's maps, of any strides.
        width: Channels of every output.
        strides: Output strides in pixels, ascending, such as `(8, 16, 32, 64, 128)`.
        norm: What follows each convolution. GroupNorm (arXiv:1803.08494) sees one image at a time, so that
            neither small batches nor the mixture of tasks matter to it, as they do to BatchNorm.

    Attributes:
        features: The outputs, one per stride; stride 8 is named `p3`.

    Raises:
        RecipeError: strides that do not ascend.
    """

    def __init__(
        self, features: Sequence[FeatureSpec], width: int, strides: Sequence[int], *, norm: Norm = "group"
    ) -> None:
        super().__init__()
        check_ascending(strides)
        ordered = sorted(features, key=lambda feature: feature.stride)
        sources = [max((f.stride for f in ordered if f.stride <= s), default=ordered[0].stride) for s in strides]
        used = [feature for feature in ordered if feature.stride >= sources[0]]
        coarsest = used[-1].stride
        self.features = tuple(FeatureSpec(level_name(stride), width, stride) for stride in strides)
        self._inputs = tuple(features.index(feature) for feature in used)
        self._sources = tuple([f.stride for f in used].index(source) for source in sources)
        self._coarsest = coarsest
        self.laterals = nn.ModuleList(_conv(feature.channels, width, 1, norm=norm) for feature in used)

        self.outputs = nn.ModuleList()
        self._scales: list[float] = []
        previous = coarsest
        for stride, source in zip(strides, sources, strict=True):
            start = previous if stride > coarsest else source
            halvings = int(math.log2(stride / start)) if stride > coarsest else 0
            self._scales.append(start * 2**halvings / stride)
            self.outputs.append(_output(width, halvings, start > coarsest, norm))
            previous = max(previous, stride)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One (B, C, H, W) map per backbone feature to one (B, width, H', W') map per stride."""
        merged = [lateral(maps[i]) for lateral, i in zip(self.laterals, self._inputs, strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            # To the finer map's own size, which with odd sizes is not twice the coarser one's.
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        results: list[Tensor] = []
        previous = merged[-1]
        for i, output in enumerate(self.outputs):
            stride = self.features[i].stride
            start = previous if stride > self._coarsest else merged[self._sources[i]]
            results.append(output(_resize(start, self._scales[i])))
            if stride >= self._coarsest:
                previous = results[-1]
        return results


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (arXiv:2203.16527, sec. 3): all strides from a plain ViT's last map.

    Finer levels by transposed convolutions, coarser ones by max pooling, then a 1 × 1 and a 3 × 3 convolution
    with LayerNorm. Where the patch size is no power-of-two multiple of the strides (14), the map is first
    resized to the nearest that is (16).

    Args:
        feature: The map.
        width: Channels of every output.
        strides: Output strides in pixels, ascending, each a doubling of the one before.

    Attributes:
        features: The outputs, one per stride; stride 8 is named `p3`.

    Raises:
        RecipeError: strides that are not doublings.
    """

    def __init__(self, feature: FeatureSpec, width: int = 256, strides: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        check_ascending(strides)
        if any(coarser != 2 * finer for finer, coarser in pairwise(strides)):
            raise RecipeError(f"a simple pyramid's strides must double, such as (4, 8, 16, 32), not {tuple(strides)}")
        doublings = round(math.log2(feature.stride / strides[0]))
        self._scale = feature.stride / (strides[0] * 2**doublings)
        self.features = tuple(FeatureSpec(level_name(stride), width, stride) for stride in strides)
        self.levels = nn.ModuleList(_level(feature.channels, width, doublings - i) for i in range(len(strides)))

    def forward(self, feature_map: Tensor) -> list[Tensor]:
        """(B, C, H, W) to one (B, width, H', W') map per stride."""
        feature_map = _resize(feature_map, self._scale)
        return [level(feature_map) for level in self.levels]


def level_name(stride: int) -> str:
    """`p3` for stride 8, as pyramids' papers name levels; `stride14` where 2 has no such power."""
    return f"p{stride.bit_length() - 1}" if stride & (stride - 1) == 0 else f"stride{stride}"


def check_ascending(strides: Sequence[int]) -> None:
    """Raises RecipeError unless there are strides, at least 1, each larger than the one before."""
    if not strides or strides[0] < 1 or any(a >= b for a, b in pairwise(strides)):
        raise RecipeError(f"strides must be positive and ascend, such as (8, 16, 32), not {tuple(strides)}")


class _LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), at each place by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _resize(feature_map: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return feature_map
    return F.interpolate(feature_map, scale_factor=scale, mode="bilinear")


def group_norm(width: int) -> nn.GroupNorm:
    """GroupNorm of up to 32 groups of two channels or more: one alone, on a map of 1 × 1, would always be 0."""
    groups = math.gcd(32, width)
    return _GroupNorm(groups // 2 if groups == width > 1 else groups, width)


class _GroupNorm(nn.GroupNorm):
    """GroupNorm in fp32 on a CPU, too, as autocast has it on a GPU: torch's kernel for NHWC maps in bf16 takes 1 to 4
    times as long, the longer the smaller the map, and more than the convolutions around it.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if maps.device.type == "cpu" and maps.dtype == torch.bfloat16:
            return super().forward(maps.float()).to(maps.dtype)
        return super().forward(maps)


def _conv(channels: int, width: int, kernel: int, *, stride: int = 1, norm: Norm) -> nn.Sequential:
    normalise = group_norm(width) if norm == "group" else nn.BatchNorm2d(width)
    return nn.Sequential(nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False), normalise)


def _output(width: int, halvings: int, activate: bool, norm: Norm) -> nn.Sequential:
    """A 3 × 3 convolution, or one of stride 2 per halving; `activate`: the input comes from another of these."""
    if halvings == 0:
        return _conv(width, width, 3, norm=norm)
    layers: list[nn.Module] = []
    for i in range(halvings):
        layers += [nn.ReLU()] if activate or i else []
        layers += [_conv(width, width, 3, stride=2, norm=norm)]
    return nn.Sequential(*layers)


def _level(channels: int, width: int, doublings: int) -> nn.Sequential:
    """One level of the simple pyramid, `2 ** doublings` times the input's size."""
    layers: list[nn.Module] = []
    for i in range(doublings):
        layers += [_LayerNorm2d(channels), nn.GELU()] if i else []
        layers += [nn.ConvTranspose2d(channels, channels // 2, 2, 2)]
        channels //= 2
    if doublings < 0:
        layers += [nn.MaxPool2d(2**-doublings)]
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, width, 1, bias=False),
        _LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        _LayerNorm2d(width),
    )
