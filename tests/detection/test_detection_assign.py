from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtframe_detection import atss as _assign
from mtframe_detection.atss import inside_any
from mtframe_detection.box_geometry import grid_points

STRIDES = (8, 16, 32)


def assign(points: Tensor, boxes: Tensor, valid: Tensor, anchor_scale: float = 8) -> Tensor:
    """With the strides that the points have."""
    return _assign.assign(points, boxes, valid, points[:, 2].unique().tolist(), anchor_scale=anchor_scale)


def points_of(size: int) -> Tensor:
    return grid_points([(size // stride, size // stride) for stride in STRIDES], STRIDES, torch.device("cpu"))


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def assign_one_image(
    points: list[list[float]], boxes: list[list[float]], anchor_scale: float = 8, number: int = 9
) -> list[int]:
    """ATSS, algorithm 1 of arXiv:1912.02424, line by line; the cell that holds a box's centre always counts as inside,
    and no box goes empty that has a candidate inside."""
    best: list[tuple[float, int]] = [(-1.0, -1)] * len(points)
    finest = min(point[2] for point in points)

    def within(px: float, py: float, stride: float, box: list[float]) -> bool:
        in_cell = 2 * abs(px - (box[0] + box[2]) / 2) <= stride and 2 * abs(py - (box[1] + box[3]) / 2) <= stride
        return (box[0] < px < box[2] and box[1] < py < box[3]) or (stride == finest and in_cell)

    for owner, box in enumerate(boxes):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates: list[int] = []
        for stride in sorted({point[2] for point in points}):
            level = [index for index, point in enumerate(points) if point[2] == stride]
            level.sort(key=lambda index: (points[index][0] - x) ** 2 + (points[index][1] - y) ** 2)
            candidates += level[:number]
        ious = []
        for index in candidates:
            px, py, stride = points[index]
            half = stride * anchor_scale / 2
            ious.append(iou([px - half, py - half, px + half, py + half], box))
        mean = sum(ious) / len(ious)
        deviation = (sum((value - mean) ** 2 for value in ious) / (len(ious) - 1)) ** 0.5
        inside = {index: value for index, value in zip(candidates, ious, strict=True) if within(*points[index], box)}
        threshold = min(mean + deviation, max(inside.values(), default=0))
        for index, value in inside.items():
            if value >= threshold and value > best[index][0]:
                best[index] = value, owner
    return [owner for _, owner in best]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), size=st.sampled_from([32, 64, 96]), most=st.integers(0, 6),
    scale=st.sampled_from([8.0, 5.0, 3.3]),
)  # fmt: skip
def test_agrees_with_the_paper_image_by_image(seed: int, size: int, most: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = points_of(size)
    valid = torch.rand(3, most, generator=generator) < 0.7
    corner = torch.rand(3, most, 2, generator=generator, dtype=torch.float64) * size * 0.8
    # Irrational-like sides: exact ties would leave the order of equals open.
    side = 3 + torch.rand(3, most, 2, generator=generator, dtype=torch.float64) * size * 0.7
    boxes = torch.cat([corner, corner + side], dim=-1)
    assigned = assign(points.double(), boxes, valid, scale)
    for image in range(3):
        numbers = valid[image].nonzero()[:, 0].tolist()
        expected = assign_one_image(points.tolist(), boxes[image][valid[image]].tolist(), scale)
        assert assigned[image].tolist() == [numbers[owner] if owner >= 0 else -1 for owner in expected]


def test_a_small_box_has_points_even_with_two_levels() -> None:
    points = grid_points([(8, 8), (4, 4)], (8, 16), torch.device("cpu"))
    assigned = assign(points, torch.tensor([[[7.0, 7, 31, 31]]]), torch.ones(1, 1, dtype=torch.bool))
    chosen = points[assigned[0] == 0]
    assert chosen[:, 2].unique().tolist() == [8]
    assert sorted(chosen[:, :2].tolist()) == [[x, y] for x in (12, 20, 28) for y in (12, 20, 28)]


def test_the_coarsest_level_learns_large_boxes_where_anchors_are_no_larger_than_the_image() -> None:
    """At 320 pixels an anchor of 8 strides is 512 wide at stride 64: whatever the box, it overlaps less than others."""
    strides = (8, 16, 32, 64)
    points = grid_points([(320 // stride, 320 // stride) for stride in strides], strides, torch.device("cpu"))
    whole = torch.tensor([[[20.0, 30, 300, 310]]])
    levels = {
        scale: points[assign(points, whole, torch.ones(1, 1, dtype=torch.bool), scale)[0] == 0, 2].unique().tolist()
        for scale in (8, 4)
    }
    assert levels == {8: [32], 4: [64]}


def test_memory_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    points, corner = points_of(64), torch.rand(2, 13, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, 13, 2, generator=generator) * 30], dim=-1)
    valid = torch.ones(2, 13, dtype=torch.bool)
    whole = assign(points, boxes, valid)
    monkeypatch.setattr(_assign, "_CHUNK", 2 * len(points) * 3)
    assert torch.equal(assign(points, boxes, valid), whole)
    assert (whole >= 0).any()


def test_no_boxes_and_only_padding_give_background() -> None:
    points = points_of(64)
    nothing = assign(points, torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool))
    padding = assign(points, torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.shape == padding.shape == (2, len(points))
    assert (nothing == -1).all()
    assert (padding == -1).all()


def test_of_equal_boxes_the_first_wins() -> None:
    box = torch.tensor([10.3, 11.7, 50.1, 49.2])
    assigned = assign(points_of(64), box.repeat(1, 3, 1), torch.tensor([[False, True, True]]))
    assert set(assigned.flatten().tolist()) == {-1, 1}


def test_thousands_of_points_and_a_thousand_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    points, corner = points_of(512), torch.rand(1, 1000, 2, generator=generator) * 480
    boxes = torch.cat([corner, corner + 10 + 20 * torch.rand(1, 1000, 2, generator=generator)], dim=-1)
    assigned = assign(points, boxes, torch.ones(1, 1000, dtype=torch.bool))
    owners = assigned[assigned >= 0]
    chosen, owned = points[(assigned[0] >= 0)], boxes[0, owners]
    assert ((chosen[:, :2] > owned[:, :2]) & (chosen[:, :2] < owned[:, 2:])).all()
    assert len(owners.unique()) > 500


def test_inside_any_sees_valid_regions_only() -> None:
    points = torch.tensor([[5.0, 5.0, 8.0], [20.0, 20.0, 8.0]])
    regions = torch.tensor([[[0.0, 0, 10, 10], [15, 15, 25, 25]], [[0.0, 0, 30, 30], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, False], [True, False]])
    assert inside_any(points, regions, valid).tolist() == [[True, False], [True, True]]
    assert inside_any(points, torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)).tolist() == [[False] * 2] * 2


def test_the_only_point_of_a_map_is_taken() -> None:
    point = torch.tensor([[32.0, 32.0, 64.0]])
    boxes = torch.tensor([[[10.0, 10.0, 50.0, 60.0]], [[70.0, 40.0, 90.0, 60.0]]])
    assert assign(point, boxes, torch.ones(2, 1, dtype=torch.bool)).tolist() == [[0], [-1]]


@pytest.mark.parametrize("side", [2, 3, 4])
def test_boxes_between_the_points_belong_to_the_cell_that_holds_their_centre(side: int) -> None:
    points = points_of(64)
    corner = torch.tensor([[0.5, 1.0], [8.2, 9.1], [60.0, 0.0], [33.0, 40.5]])
    boxes = torch.cat([corner, corner + side], dim=1)[None]
    assigned = assign(points, boxes, torch.ones(1, 4, dtype=torch.bool))[0]
    for owner, (column, row) in enumerate([(0, 0), (1, 1), (7, 0), (4, 5)]):
        assert (assigned == owner).nonzero().flatten().tolist() == [row * 8 + column]
