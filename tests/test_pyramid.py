"""The feature pyramids."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import FeaturePyramid, SimplePyramid, group_norm


def specs(*strides: int) -> tuple[FeatureSpec, ...]:
    return tuple(FeatureSpec(f"c{stride}", 4 + i, stride) for i, stride in enumerate(strides))


def maps_of(features: tuple[FeatureSpec, ...], height: int, width: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, f.channels, -(-height // f.stride), -(-width // f.stride)) for f in features]


def shapes(maps: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(feature_map.shape) for feature_map in maps]


def all_parameters_learn(module: nn.Module, maps: list[Tensor]) -> bool:
    # Weighted, because the plain sum of what a norm layer gives has no gradient.
    sum((level * torch.randn_like(level)).sum() for level in maps).backward()
    return all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def test_outputs_have_the_asked_strides_and_the_width() -> None:
    features = specs(4, 8, 16, 32)
    pyramid = FeaturePyramid(features, 16, (8, 16, 32, 64, 128))
    levels = pyramid(maps_of(features, 128, 256))
    assert shapes(levels) == [(2, 16, 16, 32), (2, 16, 8, 16), (2, 16, 4, 8), (2, 16, 2, 4), (2, 16, 1, 2)]
    assert pyramid.features[0] == FeatureSpec("p3", channels=16, stride=8)
    assert [feature.name for feature in pyramid.features] == ["p3", "p4", "p5", "p6", "p7"]


def test_a_map_finer_than_all_outputs_gets_no_weights() -> None:
    features = specs(4, 8, 16, 32)
    pyramid = FeaturePyramid(features, 16, (8, 16, 32, 64, 128))
    assert [lateral[0].in_channels for lateral in pyramid.laterals] == [5, 6, 7]
    assert all_parameters_learn(pyramid, pyramid(maps_of(features, 256, 256)))


def test_context_flows_from_coarse_to_fine_only() -> None:
    features = specs(8, 16, 32)
    pyramid = FeaturePyramid(features, 16, (8, 16, 32))
    maps = [feature_map.requires_grad_() for feature_map in maps_of(features, 64, 64)]
    reached = []
    for level in pyramid(maps):
        gradients = torch.autograd.grad(
            (level * torch.randn_like(level)).sum(), maps, retain_graph=True, allow_unused=True
        )
        reached.append([gradient is not None for gradient in gradients])
    assert reached == [[True, True, True], [False, True, True], [False, False, True]]


def test_merging_by_hand() -> None:
    """Identity convolutions: the fine output is the fine map plus the upsampled coarse one (FPN, fig. 3)."""
    pyramid = FeaturePyramid((FeatureSpec("c3", 1, 8), FeatureSpec("c4", 1, 16)), 1, (8, 16))
    for block in (*pyramid.laterals, *pyramid.outputs):
        nn.init.dirac_(block[0].weight)
        block[1] = nn.Identity()
    fine, coarse = torch.zeros(1, 1, 3, 3), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    fine[0, 0, 0, 0] = 10
    levels = pyramid([fine, coarse])
    assert levels[0][0, 0].tolist() == [[11, 1, 2], [1, 1, 2], [3, 3, 4]]
    assert torch.equal(levels[1], coarse)


def test_the_top_of_the_pyramid_is_made_like_p6_and_p7_of_fcos() -> None:
    pyramid = FeaturePyramid((FeatureSpec("c5", 1, 32),), 1, (32, 64, 128))
    for block in (pyramid.laterals[0], pyramid.outputs[0], pyramid.outputs[1][0], pyramid.outputs[2][1]):
        nn.init.dirac_(block[0].weight)
        block[1] = nn.Identity()
    top = torch.arange(-8.0, 8.0).view(1, 1, 4, 4)
    levels = pyramid([top])
    assert torch.equal(levels[1], top[..., ::2, ::2])
    assert torch.equal(levels[2], top[..., ::4, ::4].relu())  # ReLU only between P6 and P7


@given(
    strides=st.sampled_from([(4, 8, 16, 32), (16, 32, 64), (14,), (7, 14, 28), (8, 16)]),
    asked=st.lists(st.sampled_from([4, 8, 16, 32, 64, 128]), min_size=1, unique=True).map(sorted),
    height=st.integers(2, 9).map(lambda cells: 28 * cells),
    width=st.integers(2, 9).map(lambda cells: 28 * cells),
)
@settings(max_examples=40, deadline=None)
def test_any_strides_from_any_strides(strides, asked, height, width) -> None:
    features = specs(*strides)
    levels = FeaturePyramid(features, 8, asked)(maps_of(features, height, width))
    for level, stride in zip(levels, asked, strict=True):
        for cells, pixels in zip(level.shape[2:], (height, width), strict=True):
            # Each rounding on the way, of at most a cell of the map it comes from, may leave one cell.
            assert abs(cells - pixels / stride) < 1 + max(strides) / stride


def test_the_order_of_the_given_features_is_kept() -> None:
    features = specs(4, 8, 16)[::-1]
    pyramid = FeaturePyramid(features, 8, (8, 16))
    assert shapes(pyramid(maps_of(features, 64, 64))) == [(2, 8, 8, 8), (2, 8, 4, 4)]


def test_group_norm_sees_one_image_at_a_time() -> None:
    features = specs(8, 16)
    pyramid = FeaturePyramid(features, 16, (8, 16, 32)).train()
    maps = maps_of(features, 64, 64)
    together = pyramid(maps)
    alone = pyramid([feature_map[:1] for feature_map in maps])
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(both[:1], one)
    assert any(isinstance(m, nn.BatchNorm2d) for m in FeaturePyramid(features, 16, (8,), norm="batch").modules())


@pytest.mark.parametrize("strides", [(), (16, 8), (8, 8), (0, 8)])
def test_strides_that_do_not_ascend(strides) -> None:
    with pytest.raises(RecipeError, match=r"strides must be positive and ascend, such as \(8, 16, 32\), not"):
        FeaturePyramid(specs(8, 16), 8, strides)


@pytest.mark.parametrize(
    ("stride", "cells", "expected"),
    [
        (16, 6, [24, 12, 6, 3]),
        (8, 6, [12, 6, 3, 1]),
        (32, 3, [24, 12, 6, 3]),
        (14, 16, [56, 28, 14, 7]),
        (7, 8, [14, 7, 3, 1]),
    ],
)
def test_simple_pyramid_sizes(stride, cells, expected) -> None:
    pyramid = SimplePyramid(FeatureSpec("blocks.11", 32, stride), 24)
    levels = pyramid(torch.randn(2, 32, cells, cells))
    assert shapes(levels) == [(2, 24, size, size) for size in expected]
    assert [(f.name, f.channels, f.stride) for f in pyramid.features] == [
        ("p2", 24, 4), ("p3", 24, 8), ("p4", 24, 16), ("p5", 24, 32)
    ]  # fmt: skip
    assert all_parameters_learn(pyramid, levels)


def test_simple_pyramid_normalises_each_place_by_itself() -> None:
    pyramid = SimplePyramid(FeatureSpec("blocks.11", 8, 16), 6)
    level = pyramid(torch.randn(1, 8, 4, 4))[2]
    assert level.mean(dim=1).abs().max() < 1e-5
    torch.testing.assert_close(level.var(dim=1, unbiased=False), torch.ones(1, 4, 4), rtol=0.02, atol=0.02)


def test_simple_pyramid_strides_must_double() -> None:
    with pytest.raises(RecipeError, match=r"strides must double, such as \(4, 8, 16, 32\), not \(4, 16\)"):
        SimplePyramid(FeatureSpec("blocks.11", 8, 16), 6, (4, 16))


@pytest.mark.parametrize(
    ("width", "groups"), [(128, 32), (96, 32), (64, 32), (32, 16), (16, 8), (24, 8), (7, 1), (1, 1)]
)
def test_groups_of_a_norm_have_two_channels_so_that_a_map_of_one_pixel_is_not_all_zero(width: int, groups: int) -> None:
    norm = group_norm(width)
    assert norm.num_groups == groups
    if width > 1:
        assert norm(torch.randn(1, width, 1, 1)).abs().max() > 0.1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_group_norm_of_bf16_maps_is_that_of_fp32(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    norm, kernel, seen = group_norm(64), nn.functional.group_norm, []

    def recorded(maps: Tensor, *others: Any) -> Tensor:
        # torch's own kernel of bf16 maps is as exact, but many times slower where they are NHWC.
        seen.append(maps.dtype)
        return kernel(maps, *others)

    monkeypatch.setattr(nn.functional, "group_norm", recorded)
    maps = (torch.randn(2, 64, 8, 8) + 10).bfloat16().contiguous(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        given = norm(maps)
    assert (seen, given.dtype) == ([torch.float32], torch.bfloat16)
    assert given.is_contiguous(memory_format=layout)
    groups = maps.double().reshape(2, 32, 2, 8, 8)
    mean, variance = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), keepdim=True, correction=0)
    expected = ((groups - mean) / (variance + norm.eps).sqrt()).reshape(maps.shape)
    torch.testing.assert_close(given.double(), expected, rtol=2**-8, atol=2**-8)
