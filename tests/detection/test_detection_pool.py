from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import ps_roi_align

from mtframe_detection.pooling import position_sensitive_pool


def boxes_for(images: int, size: int, seed: int = 0) -> Tensor:
    """Random boxes, those that reach out of the image or lie outside of it, and tiny ones."""
    generator = torch.Generator().manual_seed(seed)
    centre = (torch.rand(images, 40, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3) * size
    side = torch.rand(images, 40, 2, generator=generator, dtype=torch.float64).pow(4) * size
    return torch.cat([centre - side / 2, centre + side / 2], dim=-1)


def torchvisions(maps: Tensor, boxes: Tensor, bins: int, stride: float, samples: int) -> Tensor:
    pooled = ps_roi_align(maps, list(boxes), bins, 1 / stride, samples)
    return pooled.unflatten(0, boxes.shape[:2])


@pytest.mark.parametrize("bins", [1, 3, 7])
@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize(("height", "width", "stride"), [(9, 13, 8), (1, 5, 16), (4, 1, 7)])
def test_values_and_gradients_are_torchvisions(bins: int, samples: int, height: int, width: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(bins)
    maps = torch.randn(3, 2 * bins * bins, height, width, generator=generator, dtype=torch.float64)
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    boxes = boxes_for(3, max(height, width) * stride)
    pooled = position_sensitive_pool(ours, boxes, bins, stride, samples)
    expected = torchvisions(theirs, boxes, bins, stride, samples)
    torch.testing.assert_close(pooled, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(pooled.shape, generator=generator, dtype=torch.float64)
    (pooled * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)


def test_gradient_by_finite_differences() -> None:
    maps = torch.randn(2, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    boxes = boxes_for(2, 32)[:, :5]
    assert torch.autograd.gradcheck(lambda maps: position_sensitive_pool(maps, boxes, 2, 8), (maps,))


def test_border_rule_by_hand() -> None:
    # One row of cells 1, 2, 3. With one bin and one sample a box is read in its middle, in cells minus a half.
    maps = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    middle = torch.tensor([-0.6, -0.4, 0.5, 1.0, 2.9, 3.4, 3.6])
    boxes = torch.stack([middle, torch.full_like(middle, 0.5)] * 2, dim=1)
    boxes += torch.tensor([-0.01, -0.01, 0.01, 0.01])
    pooled = position_sensitive_pool(maps, boxes[None], 1, 1, 1).flatten()
    torch.testing.assert_close(pooled, torch.tensor([0, 1, 1, 1.5, 3, 3, 0]))
    torch.testing.assert_close(pooled, torchvisions(maps, boxes[None], 1, 1, 1).flatten())


def test_each_part_of_a_box_reads_its_own_map() -> None:
    maps = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 6, 6)
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]])
    assert position_sensitive_pool(maps, boxes, 2, 8).tolist() == [[[[[0, 1], [2, 3]]]]]


def test_boxes_get_no_gradient_and_half_precision_boxes_are_taken() -> None:
    boxes = boxes_for(1, 32).float().requires_grad_()
    maps = torch.randn(1, 9, 4, 4, requires_grad=True)
    position_sensitive_pool(maps, boxes, 3, 8).sum().backward()
    assert boxes.grad is None
    assert maps.grad is not None
    assert position_sensitive_pool(maps, boxes.double(), 3, 8).dtype == torch.float32
