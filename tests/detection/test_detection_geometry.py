from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor

from mtframe_detection.box_geometry import (
    BoxOverlap,
    box_overlap,
    centres_inside,
    distances_to_boxes,
    grid_points,
)


def random_boxes(number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * 100
    return torch.cat([corner, corner + torch.rand(number, 2, generator=generator) * 60 + 0.1], dim=1)


def test_points_lie_in_the_middle_of_cells_level_by_level() -> None:
    points = grid_points([(2, 3), (1, 1)], (8, 16), torch.device("cpu"))
    assert points.tolist() == [
        [4, 4, 8], [12, 4, 8], [20, 4, 8], [4, 12, 8], [12, 12, 8], [20, 12, 8], [8, 8, 16],
    ]  # fmt: skip


def test_distances_to_boxes_by_hand() -> None:
    points = torch.tensor([[10.0, 20.0], [0.0, 0.0]])
    distances = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 5.0, 6.0]]])
    assert distances_to_boxes(points, distances).tolist() == [[[9, 18, 13, 24], [0, 0, 5, 6]]]


def test_points_on_the_border_are_not_inside() -> None:
    points = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [1.0, 2.5]])
    assert centres_inside(points, torch.tensor([0.0, 0.0, 2.0, 2.0])).tolist() == [False, True, False, False]


def test_overlaps_by_hand() -> None:
    box, target = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 4.0, 2.0]])
    # Intersection 2, union 8; the hull, 4 x 2, has no empty space; centres are 1.5 apart, its diagonal √20.
    assert box_overlap(box, target, "iou").item() == pytest.approx(0.25)
    assert box_overlap(box, target, "giou").item() == pytest.approx(0.25)
    assert box_overlap(box, target, "diou").item() == pytest.approx(0.25 - 2.25 / 20)


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [
        ("giou", torchvision.ops.generalized_box_iou_loss),
        ("diou", torchvision.ops.distance_box_iou_loss),
        ("ciou", torchvision.ops.complete_box_iou_loss),
    ],
)
def test_losses_and_gradients_are_torchvisions(kind: BoxOverlap, oracle: object) -> None:
    targets = random_boxes(500, 1)
    ours, theirs = (random_boxes(500, 0).requires_grad_() for _ in range(2))
    loss = 1 - box_overlap(ours, targets, kind)
    expected = oracle(theirs, targets, reduction="none")  # type: ignore[operator]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_iou_is_torchvisions() -> None:
    boxes, targets = random_boxes(300, 2), random_boxes(300, 3)
    expected = torchvision.ops.box_iou(boxes, targets).diagonal()
    torch.testing.assert_close(box_overlap(boxes, targets), expected)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_boxes_without_area_stay_finite(kind: BoxOverlap) -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [0, 0, 4, 4], [5, 5, 5, 5], [1, 1, 1, 9]], requires_grad=True)
    targets = torch.tensor([[5.0, 5, 5, 5], [9, 9, 9, 9], [0, 0, 9, 9], [0, 3, 7, 3]])
    overlap = box_overlap(boxes, targets, kind)
    overlap.sum().backward()
    assert overlap.isfinite().all()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_a_perfect_fit_is_one(kind: BoxOverlap) -> None:
    boxes = random_boxes(50, 4)
    torch.testing.assert_close(box_overlap(boxes, boxes, kind), torch.ones(50), rtol=0, atol=1e-4)
