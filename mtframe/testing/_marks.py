"""Whether marks can be drawn, and whether two lists of them are the same."""

# Shapes: H and W of a picture.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from mtframe.marks import Bar, Box, Mark, Mask, Point, Polyline

from ._violation import expect

# Pixels that a mark may reach beyond a picture, or be away from another: rounding.
_PIXELS = 1.0

Shape = Box | Point | Polyline
Window = tuple[float, float, float, float]


def check_marks(of: str, marks: Sequence[Mark], size: tuple[int, int], seen: Window | None = None) -> None:
    """Raises Violation unless marks can be drawn on a picture of (height, width), and are seen on it.

    Args:
        of: What messages begin with.
        marks: The marks.
        size: Of the picture.
        seen: The part of it in which they must be seen, XYXY; all of it if None.
    """
    expect(isinstance(marks, list | tuple), f"{of}: expected a list of marks, got {type(marks).__name__}")
    for mark in marks:
        expect(isinstance(mark, get_args(Mark)), f"{of}: expected marks of mtframe.marks, got {mark!r}")
        score = getattr(mark, "score", None)
        expect(score is None or 0 <= score <= 1, f"{of}: expected a score of 0 to 1, or None, got {score!r}")
        if isinstance(mark, Bar):
            part = mark.part
            expect(part is None or 0 <= part <= 1, f"{of}: expected a part of 0 to 1, or None, got {part!r}")
        elif isinstance(mark, Mask):
            shape, dtype = tuple(mark.values.shape), mark.values.dtype
            expect(shape == tuple(size), f"{of}: expected a mask of {size} (height, width), got {shape}")
            expect(not dtype.is_floating_point, f"{of}: expected a mask of whole numbers, got {dtype}")
        elif isinstance(mark, Shape):
            _check_place(of, mark, seen or (0.0, 0.0, float(size[1]), float(size[0])))


def same_marks(of: str, found: Sequence[Mark], parts: Sequence[Sequence[Mark]], windows: Sequence[Window]) -> None:
    """Raises Violation unless all that has a place in `found` is what `parts` have, each in a window of its own."""
    left = [mark for mark in found if isinstance(mark, Shape)]
    for mark in (mark for marks in parts for mark in marks if isinstance(mark, Shape)):
        other = next((other for other in left if _same(mark, other)), None)
        expect(other is not None, f"{of}: {mark!r}, which is drawn alone, is not")
        left = [one for one in left if one is not other]
    expect(not left, f"{of}: {left[:1]} is drawn, and alone is not")
    whole = _mask(found)
    for marks, window in zip(parts, windows, strict=True):
        own = _mask(marks)
        expect((own is None) == (whole is None), f"{of}: a mask is drawn of all or of one alone, not of both")
        if own is not None and whole is not None:
            x1, y1, x2, y2 = map(round, window)
            alike = torch.equal(own[y1:y2, x1:x2], whole[y1:y2, x1:x2])
            expect(alike, f"{of}: the mask in {window} (XYXY) is another than that of the image there alone")


def _check_place(of: str, mark: Shape, seen: Window) -> None:
    points = _points(mark)
    expect(all(map(math.isfinite, sum(points, ()))), f"{of}: expected finite coordinates, got {mark!r}")
    # Not each point: a circle about a place in the picture reaches beyond it.
    xs, ys = zip(*points, strict=True)
    across = min(xs) <= seen[2] + _PIXELS and max(xs) >= seen[0] - _PIXELS
    down = min(ys) <= seen[3] + _PIXELS and max(ys) >= seen[1] - _PIXELS
    expect(across and down, f"{of}: {mark!r} lies beyond what is seen, {seen} (XYXY)")


def _points(mark: Shape) -> list[tuple[float, float]]:
    if isinstance(mark, Box):
        x1, y1, x2, y2 = mark.corners
        return [(x1, y1), (x2, y2)]
    return [mark.at] if isinstance(mark, Point) else [(x, y) for x, y in mark.points]


def _same(one: Shape, other: Shape) -> bool:
    if (type(one), one.text, one.colour) != (type(other), other.text, other.colour):
        return False
    pairs = (_points(one), _points(other))
    return len(pairs[0]) == len(pairs[1]) and all(
        math.dist(point, where) <= _PIXELS for point, where in zip(*pairs, strict=True)
    )


def _mask(marks: Sequence[Mark]) -> Tensor | None:
    """The numbers of the mask that is drawn, if there is one."""
    return next((mark.values for mark in marks if isinstance(mark, Mask)), None)
