"""Where an original lies in an input: points, boxes and maps there and back, windows and shares."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtframe.data import Placement, shares

sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))
small_sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def scaled(draw: st.DrawFn, original: st.SearchStrategy[tuple[int, int]] = sizes) -> Placement:
    """Without a turn, perhaps mirrored."""
    scale = draw(st.tuples(st.floats(0.05, 8), st.floats(0.05, 8)))
    sign = draw(st.sampled_from([1, -1]))
    offset = draw(st.tuples(st.floats(-300, 300), st.floats(-300, 300)))
    return Placement.scaled(draw(original), draw(original), (sign * scale[0], scale[1]), offset)


@st.composite
def turned(draw: st.DrawFn, original: st.SearchStrategy[tuple[int, int]] = sizes) -> Placement:
    """Turned, scaled, moved and perhaps mirrored; by the map that a resampling is given."""
    angle, zoom = draw(st.floats(0.05, 3.0)), draw(st.floats(0.1, 8))
    mirror = draw(st.sampled_from([1, -1]))
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    shift = draw(st.tuples(st.floats(-300, 300), st.floats(-300, 300)))
    inverse = np.array([[cos * mirror, -sin, shift[0]], [sin * mirror, cos, shift[1]]])
    return Placement.by_inverse(inverse, draw(original), draw(original))


placements = st.one_of(scaled(), turned())


def windows_up_to(most: float) -> st.SearchStrategy[tuple[float, float, float, float] | None]:
    """Of any size, in the input and beyond it."""
    sides = st.tuples(st.floats(-3, most), st.floats(-3, most)).map(sorted)
    return st.one_of(st.none(), st.tuples(sides, sides).map(lambda its: (its[0][0], its[1][0], its[0][1], its[1][1])))


windows, small_windows = windows_up_to(400), windows_up_to(12)


def some_points(seed: int = 0) -> Tensor:
    return torch.rand(12, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 500 - 50


def some_boxes(seed: int = 0) -> Tensor:
    corner, side = some_points(seed), some_points(seed + 1).abs()
    return torch.cat([corner, corner + side], dim=1)


def same(one: Placement, other: Placement) -> None:
    np.testing.assert_allclose(one.matrix, other.matrix, rtol=1e-9, atol=1e-9)
    assert (one.window is None) == (other.window is None)
    if one.window is not None:
        assert one.window == pytest.approx(other.window)
    assert replace(one, matrix=other.matrix, window=other.window) == other


@settings(deadline=None)
@given(placements)
def test_points_that_are_restored_are_where_they_were(placement: Placement) -> None:
    points = some_points()
    torch.testing.assert_close(placement.restored_points(placement.points(points)), points, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(placement.points(placement.restored_points(points)), points, rtol=1e-6, atol=1e-6)
    # Of any shape, and in the precision that is given.
    grid = points.view(3, 4, 2).float()
    assert placement.points(grid).shape == (3, 4, 2)
    assert placement.restored_points(placement.points(grid)).dtype == torch.float32


@settings(deadline=None)
@given(placements)
def test_a_map_says_of_a_point_what_its_matrix_says(placement: Placement) -> None:
    (a, b, c), (d, e, f) = placement.matrix
    for x, y in some_points().tolist():
        expected = torch.tensor([a * x + b * y + c, d * x + e * y + f], dtype=torch.float64)
        torch.testing.assert_close(placement.points(torch.tensor([x, y], dtype=torch.float64)), expected)


@settings(deadline=None)
@given(placements)
def test_a_box_becomes_the_hull_of_its_corners(placement: Placement) -> None:
    boxes = some_boxes()
    for box, hull in zip(boxes, placement.boxes(boxes), strict=True):
        x1, y1, x2, y2 = box.tolist()
        along = torch.linspace(0, 1, 9, dtype=torch.float64)
        xs, ys = x1 + (x2 - x1) * along, y1 + (y2 - y1) * along
        inner = placement.points(torch.cartesian_prod(xs, ys))
        # All of it lies within, and it touches each side.
        torch.testing.assert_close(inner.amin(0), hull[:2])
        torch.testing.assert_close(inner.amax(0), hull[2:])
    assert placement.boxes(torch.zeros(0, 4)).shape == (0, 4)


@settings(deadline=None)
@given(placements)
def test_a_box_that_is_restored_is_upright_in_the_original_and_clipped_to_it(placement: Placement) -> None:
    height, width = placement.size
    limit = torch.tensor([width, height, width, height], dtype=torch.float64)
    boxes = some_boxes(3)
    restored = placement.restored_boxes(boxes)
    assert (restored[:, 2:] >= restored[:, :2]).all()
    assert (restored >= 0).all()
    assert (restored <= limit).all()
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].view(-1, 4, 2)
    hull = placement.restored_points(corners)
    expected = torch.cat([hull.amin(1), hull.amax(1)], dim=1).clamp(min=0).minimum(limit)
    torch.testing.assert_close(restored, expected, rtol=1e-6, atol=1e-6)
    assert placement.restored_boxes(torch.zeros(0, 4)).shape == (0, 4)


@settings(deadline=None)
@given(scaled())
def test_without_a_turn_a_box_comes_back_as_it_was(placement: Placement) -> None:
    height, width = placement.size
    boxes = some_boxes().remainder(1)[:, [0, 1, 0, 1]] * torch.tensor([0.4, 0.4, 1, 1], dtype=torch.float64)
    boxes = boxes * torch.tensor([width, height, width, height])
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:].maximum(boxes[:, :2])], dim=1)
    torch.testing.assert_close(placement.restored_boxes(placement.boxes(boxes)), boxes, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(placements, windows)
def test_mirrored_twice_it_is_itself(placement: Placement, window: tuple[float, float, float, float] | None) -> None:
    placement = replace(placement, window=window)
    once = placement.flipped()
    points, width = some_points(), placement.input_size[1]
    expected = placement.points(points) * torch.tensor([-1, 1]) + torch.tensor([width, 0])
    torch.testing.assert_close(once.points(points), expected)
    assert once.mirrored is not placement.mirrored
    assert once.scale == pytest.approx(placement.scale)
    x1, y1, x2, y2 = placement.seen
    assert once.seen == pytest.approx((width - x2, y1, width - x1, y2))
    same(once.flipped(), placement)


@settings(deadline=None)
@given(placements, windows, sizes)
def test_in_another_size_everything_is_scaled(
    placement: Placement, window: tuple[float, float, float, float] | None, size: tuple[int, int]
) -> None:
    placement = replace(placement, window=window, share=0.3, min_visible=0.1)
    resized = placement.resized(size)
    factors = torch.tensor([size[1] / placement.input_size[1], size[0] / placement.input_size[0]], dtype=torch.float64)
    torch.testing.assert_close(resized.points(some_points()), placement.points(some_points()) * factors)
    torch.testing.assert_close(
        torch.tensor(resized.seen, dtype=torch.float64),
        torch.tensor(placement.seen, dtype=torch.float64) * factors.repeat(2),
    )
    assert (resized.input_size, resized.size) == (size, placement.size)
    same(resized.resized(placement.input_size), placement)


@settings(deadline=None)
@given(turned())
def test_by_its_inverse_it_is_the_same_map(placement: Placement) -> None:
    forward = np.vstack([placement.matrix, [0, 0, 1]])
    again = Placement.by_inverse(np.linalg.inv(forward)[:2], placement.size, placement.input_size)
    same(again, placement)
    assert placement.turned


def test_by_its_inverse_a_plain_scale_has_no_turn() -> None:
    placed = Placement.by_inverse(np.array([[0.5, 0, -3], [0, 0.25, 4]]), (10, 20), (30, 40), sample=3)
    assert placed == Placement.scaled((10, 20), (30, 40), (2.0, 4.0), (6.0, -16.0), sample=3)
    assert not placed.turned


@settings(deadline=None)
@given(placements)
def test_bounds_are_those_of_the_whole_original(placement: Placement) -> None:
    height, width = placement.size
    corners = torch.tensor([[0, 0], [width, 0], [0, height], [width, height]], dtype=torch.float64)
    there = placement.points(corners)
    assert placement.bounds == pytest.approx((*there.amin(0).tolist(), *there.amax(0).tolist()))
    (a, b, _), (d, e, _) = placement.matrix
    assert placement.scale == pytest.approx(math.sqrt(abs(a * e - b * d)))
    assert placement.turned == (b != 0 or d != 0)
    assert placement.mirrored == (a * e - b * d < 0)


def test_by_hand() -> None:
    """Half the size, moved by (3, 5), and mirrored in 40 pixels."""
    plain = Placement.scaled((50, 60), (64, 40), (0.5, 0.5), (3.0, 5.0))
    mirrored = Placement.scaled((50, 60), (64, 40), (-0.5, 0.5), (37.0, 5.0))
    assert plain.flipped() == mirrored
    assert plain.bounds == (3, 5, 33, 30)
    assert mirrored.bounds == (7, 5, 37, 30)
    points = torch.tensor([[10.0, 20.0], [-4.0, 70.0]])
    assert plain.points(points).tolist() == [[8, 15], [1, 40]]
    assert mirrored.points(points).tolist() == [[32, 15], [39, 40]]
    assert mirrored.restored_boxes(torch.tensor([[7.0, 5, 22, 30], [0, 0, 8, 8]])).tolist() == [
        [30, 0, 60, 50], [58, 0, 60, 6]
    ]  # fmt: skip
    # A quarter turn: what was to the right is below.
    quarter = Placement(((0.0, -1.0, 50.0), (1.0, 0.0, 0.0)), (50, 60), (60, 50))
    assert quarter.points(torch.tensor([60.0, 0.0])).tolist() == [50, 60]
    assert quarter.boxes(torch.tensor([[10.0, 0, 30, 5]])).tolist() == [[45, 10, 50, 30]]
    assert quarter.bounds == (0, 0, 50, 60)
    assert (quarter.turned, quarter.mirrored, quarter.scale) == (True, False, 1)


@settings(deadline=None)
@given(st.one_of(scaled(small_sizes), turned(small_sizes)), small_windows)
def test_a_placed_map_has_the_nearest_pixel_of_what_is_seen(
    placement: Placement, window: tuple[float, float, float, float] | None
) -> None:
    height, width = placement.input_size
    placement = replace(placement, window=window)
    values = torch.arange(math.prod(placement.size)).reshape(placement.size)
    placed = placement.placed_map(values, -1)
    assert (placed.shape, placed.dtype) == (placement.input_size, values.dtype)
    x1, y1, x2, y2 = placement.seen
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            source = placement.restored_points(torch.tensor([x, y], dtype=torch.float64)).tolist()
            assume(all(abs(place - round(place)) > 1e-6 for place in source))
            inside = x1 <= x < x2 and y1 <= y < y2 and 0 <= source[0] < placement.size[1]
            inside = inside and 0 <= source[1] < placement.size[0]
            expected = values[math.floor(source[1]), math.floor(source[0])] if inside else -1
            assert placed[row, column] == expected


@settings(deadline=None)
@given(st.one_of(scaled(small_sizes), turned(small_sizes)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_a_restored_map_is_bilinear_and_beyond_the_input_its_edge(
    placement: Placement, resolution: tuple[int, int]
) -> None:
    rows, columns = resolution
    values = torch.rand(2, rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    restored = placement.restored_map(values)
    assert restored.shape == (2, *placement.size)
    for row in range(placement.size[0]):
        for column in range(placement.size[1]):
            x, y = placement.points(torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64)).tolist()
            # In cells of the map, whose centres are at a half; at its edge the outermost one.
            x = min(max(x * columns / placement.input_size[1] - 0.5, 0), columns - 1)
            y = min(max(y * rows / placement.input_size[0] - 0.5, 0), rows - 1)
            left, top = min(int(x), max(0, columns - 2)), min(int(y), max(0, rows - 2))
            right, below = min(left + 1, columns - 1), min(top + 1, rows - 1)
            across, down = x - left, y - top
            upper = values[:, top, left] * (1 - across) + values[:, top, right] * across
            lower = values[:, below, left] * (1 - across) + values[:, below, right] * across
            expected = upper * (1 - down) + lower * down
            torch.testing.assert_close(restored[:, row, column], expected, rtol=1e-5, atol=1e-5)


def test_a_map_that_was_placed_comes_back() -> None:
    values = (torch.arange(20)[:, None] // 5 + torch.arange(24) // 6).float()
    placement = Placement.scaled((20, 24), (50, 50), (-2.0, 2.0), (49.0, 5.0))
    restored = placement.restored_map(placement.placed_map(values, 99)[None])[0]
    # Between two values it is neither, at most one pixel wide.
    inner = torch.ones_like(values, dtype=torch.bool)
    inner[:, 5::6] = inner[:, 6::6] = inner[4::5] = inner[5::5] = False
    inner[[0, -1]] = inner[:, [0, -1]] = False
    torch.testing.assert_close(restored[inner], values[inner])


def whole(**more: object) -> Placement:
    return replace(Placement.scaled((10, 10), (20, 30), (3.0, 2.0)), **more)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.integers(1, 29), st.integers(1, 19), st.permutations(range(4)))
def test_shares_of_a_mosaic_are_those_of_its_windows(x: int, y: int, order: list[int]) -> None:
    parts = [(0, 0, x, y), (x, 0, 30, y), (0, y, x, 20), (x, y, 30, 20)]
    windows = [tuple(map(float, parts[place])) for place in order]
    found = shares([whole(window=window) for window in windows])
    assert sum(found) == pytest.approx(1)
    assert found == pytest.approx([(w[2] - w[0]) * (w[3] - w[1]) / 600 for w in windows])


@settings(deadline=None)
@given(st.tuples(st.integers(0, 30), st.integers(0, 30)), st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_shares_of_cutmix_are_those_of_the_pixels(xs: tuple[int, int], ys: tuple[int, int]) -> None:
    window = float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))
    canvas = np.zeros((20, 30))
    canvas[min(ys) : max(ys), min(xs) : max(xs)] = 1
    assert shares([whole(), whole(window=window)]) == pytest.approx([1 - canvas.mean(), canvas.mean()])


@settings(deadline=None)
@given(st.floats(0, 1))
def test_shares_of_mixup_are_those_of_the_blend(kept: float) -> None:
    assert shares([whole(), whole(share=1 - kept)]) == pytest.approx([kept, 1 - kept])


def test_shares_of_what_does_not_fill_the_input_add_up_to_less() -> None:
    assert shares([whole(window=(0.0, 0.0, 15.0, 20.0))]) == [0.5]
    # Over half of it, half of it blended in; nothing is drawn on the other half.
    assert shares([whole(window=(0.0, 0.0, 15.0, 20.0)), whole(window=(0.0, 0.0, 15.0, 10.0), share=0.5)]) == [
        0.375, 0.125
    ]  # fmt: skip
    assert shares([whole()]) == [1]
