"""Whether marks of labels follow their image: they are moved as it is, and go where little of them is seen."""

# Shapes: P points, S straight lines, H and W of an image, h and w of an input.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from mtframe.data import Placement
from mtframe.marks import Box, Mark, Mask, Point, Polyline

from ._marks import Shape, Window
from ._violation import expect

# Pixels of the input that a point may be away from where it belongs: rounding to whole pixels is allowed, a mirror that
# is off by one is not.
_PIXELS = 0.5

# Part of a thing along its longer side that is left in view where little is to be seen of it, and the part that it is
# asked for (`min_visible`). Far apart: kinds measure areas, lengths or points.
SEEN, ASKED = 0.2, 0.9

# Pixels that the shorter side of a box and the longer one of a line must have: less may be too little for any label.
_LEAST = 4.0


def compare(of: str, marks: Sequence[Mark], placed: Sequence[Mark], placement: Placement) -> int:
    """Raises Violation unless the marks of a placed label lie where those of the original's are moved to.

    Args:
        of: What messages begin with.
        marks: Of the label of an original.
        placed: Of the same label, placed.
        placement: Of the original, all of which is seen.

    Returns:
        How many points and pixels could be compared.
    """
    return _compare_shapes(of, marks, placed, placement) + _compare_masks(of, marks, placed, placement)


def expect_whole(of: str, mark: Shape, found: Sequence[Mark]) -> None:
    """Raises Violation unless a mark is asked for in an input that shows all of it in its own place."""
    expect(
        _apart(_points(mark), _lines(_asked(found))).max() <= _PIXELS,
        f"{of}: {_named(mark)} is seen whole, and is not among the marks of the placed label",
    )


def expect_left_aside(of: str, mark: Shape, found: Sequence[Mark], window: Window) -> None:
    """Raises Violation if what a window leaves of a mark is one of those that are asked for."""
    for other in _asked(found):
        expect(
            type(other) is not type(mark) or (_apart(_points(other), _lines([mark])) > _PIXELS).any(),
            f"{of}: the window {tuple(round(side, 1) for side in window)} (XYXY) shows {SEEN} of {_named(mark)}, and "
            f"{_named(other)} is among the marks of the placed label; expected none, or one whose colour is None, as "
            "of what is left aside",
        )


def things(marks: Sequence[Mark], size: tuple[int, int]) -> Iterator[Box | Polyline]:
    """What is asked for on an original of (height, width), lies wholly in it, and can be seen in part."""
    height, width = size
    for mark in marks:
        if not isinstance(mark, Box | Polyline) or mark.colour is None or not len(points := _points(mark)):
            continue
        sides = points.amax(0) - points.amin(0)
        large = sides.min() >= _LEAST if isinstance(mark, Box) else sides.max() >= _LEAST
        if large and _within(points, (0.0, 0.0, width, height)).all():
            yield mark


def window_on(mark: Shape, size: tuple[int, int]) -> Window:
    """What shows a small part of a mark: all of an image that lies before a cut through the mark's longer side."""
    points = _points(mark)
    low, high = points.amin(0), points.amax(0)
    axis = int((high - low).argmax())
    edge = [float(size[1]), float(size[0])]
    edge[axis] = float(low[axis] + SEEN * (high - low)[axis])
    return 0.0, 0.0, edge[0], edge[1]


def _compare_shapes(of: str, marks: Sequence[Mark], placed: Sequence[Mark], placement: Placement) -> int:
    """Raises Violation unless boxes, points and lines are moved as the image is; returns how many points there are."""
    height, width = placement.size
    compared = 0
    for kind in (Box, Point, Polyline):
        before, after = ([mark for mark in its if isinstance(mark, kind)] for its in (marks, placed))
        lines = _lines(after)
        for mark in before:
            # What lies outside of the image may have been cut off.
            points = _points(mark)
            points = points[_within(points, (0.0, 0.0, width, height))]
            compared += len(points)
            where, apart = _worst(placement.points(points), lines)
            x, y = points[where].tolist() if apart else (0.0, 0.0)
            right_x, right_y = placement.points(torch.tensor([x, y])).tolist()
            expect(
                apart <= _PIXELS,
                f"{of}: point ({x:.1f}, {y:.1f}) of {_named(mark)} belongs at ({right_x:.1f}, {right_y:.1f}) of the "
                f"input, and {_nearest(kind, 'the placed label', apart)}",
            )
        # What is cut off ends at the image's border.
        lines = _lines([*(_moved(mark, placement) for mark in before), Box(placement.bounds)])
        for mark in (mark for mark in after if mark.colour is not None):
            where, apart = _worst(_points(mark), lines)
            x, y = _points(mark)[where].tolist() if apart else (0.0, 0.0)
            expect(
                apart <= _PIXELS,
                f"{of}: {_named(mark)} of the placed label has a point at ({x:.1f}, {y:.1f}), and "
                f"{_nearest(kind, 'the original, moved with its image,', apart)}",
            )
    return compared


def _worst(points: Tensor, lines: Tensor) -> tuple[int, float]:
    """Which of (P, 2) points is furthest from all lines, and how far; 0 of none."""
    if not len(points):
        return 0, 0.0
    apart = _apart(points, lines)
    return int(apart.argmax()), float(apart.max())


def _nearest(kind: type, whose: str, apart: float) -> str:
    if apart == torch.inf:
        return f"{whose} has no {kind.__name__}"
    return f"the nearest {kind.__name__} of {whose} is {apart:.1f} pixels from there, expected {_PIXELS} or less"


def _named(mark: Shape) -> str:
    """What messages call a mark."""
    if isinstance(mark, Point):
        return f"Point {mark.text!r}"
    points = _points(mark)
    corners = torch.cat([points.amin(0), points.amax(0)]).tolist() if len(points) else []
    return f"{type(mark).__name__} {mark.text!r} in ({', '.join(f'{side:.1f}' for side in corners)})"


def _compare_masks(of: str, marks: Sequence[Mark], placed: Sequence[Mark], placement: Placement) -> int:
    """Raises Violation unless pixels of masks are moved as the image is; how many pixels could be compared."""
    before, after = ([mark for mark in its if isinstance(mark, Mask)] for its in (marks, placed))
    compared = 0
    for mark, there in zip(before, after, strict=False):
        nowhere = int(mark.values.min()) - 1
        wanted = placement.placed_map(mark.values.long(), nowhere)
        # Along edges of regions it depends on rounding which one a pixel is in.
        clear = _flat(wanted) & (wanted != nowhere)
        wrong = int((clear & (there.values.long() != wanted)).sum())
        compared += int(clear.sum())
        expect(
            not wrong,
            f"{of}: the mask of the placed label has another number than the original's has in {wrong} of "
            f"{int(clear.sum())} pixels, away from the edges of regions",
        )
    return compared


def _flat(values: Tensor) -> Tensor:
    """(h, w) bool: pixels whose neighbours have the same number."""
    padded = values[None, None].double()
    most, least = max_pool2d(padded, 3, 1, 1), -max_pool2d(-padded, 3, 1, 1)
    return (most == least)[0, 0]


def _asked(marks: Sequence[Mark]) -> list[Box | Polyline]:
    """Marks of what is asked for: those with a colour."""
    return [mark for mark in marks if isinstance(mark, Box | Polyline) and mark.colour is not None]


def _moved(mark: Shape, placement: Placement) -> Shape:
    """The mark, moved with its image."""
    if isinstance(mark, Polyline):
        return replace(mark, points=[(x, y) for x, y in placement.points(_points(mark)).tolist()])
    if isinstance(mark, Point):
        x, y = placement.points(_points(mark))[0].tolist()
        return replace(mark, at=(x, y))
    x1, y1, x2, y2 = placement.boxes(torch.tensor([mark.corners], dtype=torch.float64))[0].tolist()
    return replace(mark, corners=(x1, y1, x2, y2))


def _points(mark: Shape) -> Tensor:
    """(P, 2) x and y: corners of a box one after the other, the point, points of a line."""
    if isinstance(mark, Box):
        x1, y1, x2, y2 = mark.corners
        points: Sequence[tuple[float, float]] = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    else:
        points = [mark.at] if isinstance(mark, Point) else mark.points
    return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)


def _lines(marks: Sequence[Shape]) -> Tensor:
    """(S, 2, 2) the straight lines that marks are drawn with, from x, y to x, y; a point is one without length."""
    lines = [torch.empty(0, 2, 2, dtype=torch.float64)]
    for mark in marks:
        points = _points(mark)
        closed = isinstance(mark, Box) or (isinstance(mark, Polyline) and mark.closed)
        ends = points.roll(-1, 0) if closed or len(points) == 1 else points[1:]
        lines.append(torch.stack([points[: len(ends)], ends], dim=1))
    return torch.cat(lines)


def _apart(points: Tensor, lines: Tensor) -> Tensor:
    """(P,) pixels from each point to the nearest of (S, 2, 2) lines; infinite if there is none."""
    if not len(lines):
        return torch.full((len(points),), torch.inf)
    starts, along = lines[:, 0], lines[:, 1] - lines[:, 0]
    away = points[:, None] - starts
    part = (away * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)
    return (away - part.clamp(0, 1)[..., None] * along).norm(dim=-1).amin(1)


def _within(points: Tensor, window: Sequence[float]) -> Tensor:
    """(P,) bool."""
    low, high = torch.tensor(window, dtype=points.dtype).chunk(2)
    return ((points >= low) & (points <= high)).all(-1)
