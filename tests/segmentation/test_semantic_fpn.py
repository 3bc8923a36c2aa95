from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_segmentation.semantic_fpn import SemanticFPN

INFO = DataInfo("mask", ("sky", "road", "car"))
FEATURES = tuple(FeatureSpec(f"f{stride}", 8 + stride, stride) for stride in (2, 4, 8, 16, 32))


def maps(side: int, batch: int = 2) -> list[Tensor]:
    """Of a backbone that halves and rounds up."""
    found, size = [], side
    for feature in FEATURES:
        size = -(-size // 2)
        found.append(torch.randn(batch, feature.channels, size, size))
    return found


@pytest.mark.parametrize("side", [64, 100, 33])
def test_logits_are_at_stride_4_whatever_the_size(side: int) -> None:
    head = SemanticFPN(FEATURES, INFO, width=16)
    logits = head(maps(side))["logits"]
    assert logits.shape == (2, 3, -(-side // 4), -(-side // 4))
    assert [feature.stride for feature in head.pyramid.features] == [4, 8, 16, 32]


def test_each_level_has_a_convolution_for_each_doubling() -> None:
    """Figure 3 of arXiv:1901.02446: three for 1/32, two for 1/16, one for 1/8, and one at 1/4 without a doubling."""
    head = SemanticFPN(FEATURES, INFO, width=16)
    convolutions = [sum(isinstance(part, nn.Conv2d) for part in branch.modules()) for branch in head.branches]
    assert convolutions == [1, 1, 2, 3]


def test_every_level_counts() -> None:
    head = SemanticFPN(FEATURES, INFO, width=16)
    inputs = [its.requires_grad_() for its in maps(64)]
    head(inputs)["logits"].square().sum().backward()
    assert inputs[0].grad is None
    assert all(its.grad is not None and its.grad.abs().sum() > 0 for its in inputs[1:])


@pytest.mark.parametrize(
    ("strides", "expected"), [((4, 8, 16, 32), (4, 8, 16, 32)), ((16,), (16,)), ((2,), (2,)), ((64, 128), (128,))]
)
def test_levels_are_those_that_a_backbone_has(strides: tuple[int, ...], expected: tuple[int, ...]) -> None:
    features = [FeatureSpec(f"f{stride}", 8, stride) for stride in strides]
    head = SemanticFPN(features, INFO, width=8)
    assert tuple(feature.stride for feature in head.pyramid.features) == expected
    side = 256
    logits = head([torch.randn(1, 8, side // stride, side // stride) for stride in strides])["logits"]
    assert logits.shape[-1] == side // expected[0]


def test_it_exports() -> None:
    head = SemanticFPN(FEATURES, INFO, width=8).eval()
    inputs = maps(64, batch=1)
    exported = torch.export.export(head, (inputs,))
    torch.testing.assert_close(exported.module()(inputs), head(inputs))


def test_in_bf16_it_says_the_same_within_its_precision() -> None:
    head = SemanticFPN(FEATURES, INFO, width=16).eval()
    inputs = maps(64)
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(inputs)
    bounds = torch.zeros(2, 4)
    scores = [its["scores"] for its in head.predict(rough, bounds)]
    assert all(its.dtype == torch.float32 for its in scores)
    for one, other in zip(scores, head.predict(head(inputs), bounds), strict=True):
        torch.testing.assert_close(one, other["scores"], atol=0.02, rtol=0)
        torch.testing.assert_close(one.sum(0), torch.ones(16, 16))


def test_options_out_of_range_are_told() -> None:
    with pytest.raises(RecipeError, match="semantic-fpn head: width must be at least 1, got 0"):
        SemanticFPN(FEATURES, INFO, width=0)
    with pytest.raises(RecipeError, match="strides must be positive and ascend"):
        SemanticFPN(FEATURES, INFO, strides=(8, 4))
