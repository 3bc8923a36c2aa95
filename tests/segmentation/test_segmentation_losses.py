"""The pixel loss against torch's own of every pixel, and Dice by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe_segmentation.losses import PixelCrossEntropy, count_pixels

INFO = DataInfo("mask", ("sky", "road", "car"))


def example(rows: int = 12, columns: int = 20, stride: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, rows // stride, columns // stride, generator=generator)
    mask = torch.randint(0, 3, (2, rows, columns), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < 0.3] = 255
    return logits.requires_grad_(), mask


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("weights", [None, {"car": 5.0, "sky": 0.0}])
def test_it_is_the_cross_entropy_of_every_known_pixel(stride: int, weights: dict[str, float] | None) -> None:
    logits, mask = example(stride=stride)
    loss = PixelCrossEntropy(INFO, class_weights=weights)
    (value,) = loss({"logits": logits}, {"mask": mask}).values()
    weight = torch.tensor([(weights or {}).get(name, 1.0) for name in INFO.classes])
    whole = F.interpolate(logits, size=mask.shape[1:], mode="nearest")
    expected = F.cross_entropy(whole, mask, weight, ignore_index=255)
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(its, logits, retain_graph=True)[0] for its in (value, expected))
    torch.testing.assert_close(ours, theirs)


def test_pixels_are_counted_in_the_cell_that_their_centre_is_in() -> None:
    mask = torch.tensor([[[0, 1, 1, 255, 2]]])
    # Cells of 2.5 pixels: the middle pixel's centre, at 2.5, is in the second.
    assert count_pixels(mask, 3, (1, 2)).tolist() == [[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]


@pytest.mark.parametrize("options", [{}, {"dice": 1.0}, {"class_weights": {"sky": 0.0}}])
def test_without_a_known_pixel_it_is_0_with_a_gradient_of_0(options: dict[str, Any]) -> None:
    logits, mask = example()
    losses = PixelCrossEntropy(INFO, **options)({"logits": logits}, {"mask": torch.full_like(mask, 255)})
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.item() == 0.0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_dice_is_1_minus_the_overlap_of_the_classes_that_are_there() -> None:
    # Two pixels of sky, one of road, one unknown; the head is sure of sky everywhere.
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 0] = 50.0
    mask = torch.tensor([[[0, 0], [1, 255]]])
    losses = PixelCrossEntropy(INFO, dice=2.0)({"logits": logits}, {"mask": mask})
    # Sky: 2 * 2 / (3 + 2); road: 0 / (0 + 1); car is not there.
    assert losses["dice"].item() == pytest.approx(2 * (1 - 0.8 + 1 - 0) / 2)


def test_in_bf16_it_is_taken_in_fp32() -> None:
    logits, mask = example()
    loss = PixelCrossEntropy(INFO, dice=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss({"logits": logits.bfloat16()}, {"mask": mask})
    exact = loss({"logits": logits.bfloat16().float()}, {"mask": mask})
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": {"care": 2.0}}, r"class_weights: there is no class 'care' among 3; did you mean 'car'\?"),
        ({"class_weights": {"car": -1.0}}, r"class_weights: must not be negative, got -1 of 'car'"),
        ({"dice": -0.5}, r"dice: must not be negative, got -0\.5"),
    ],
)
def test_options_out_of_range_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        PixelCrossEntropy(INFO, **options)
