"""Lines as tensors: padding, cutting, comparing."""

# Shapes: N lines, P points of a line (padded), S places along a line.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Window = Sequence[float]
Point = list[float]

# Places along each part of a line, where lines are compared.
_STEPS = 8

# Pixels by which rounding may put a point beyond a border.
_SLACK = 1e-3


def stacked(lines: Sequence[Tensor], points: int | None = None) -> Tensor:
    """(N, P, 2) of lines with any numbers of points, each repeating its last one."""
    most = points or max((len(line) for line in lines), default=1)
    if not lines:
        return torch.zeros(0, most, 2)
    return torch.stack([torch.cat([line, line[-1:].expand(most - len(line), 2)]) for line in lines])


def unpadded(line: Tensor) -> Tensor:
    """(P, 2) without repetitions of a point."""
    kept = torch.ones(len(line), dtype=torch.bool)
    kept[1:] = (line[1:] != line[:-1]).any(1)
    return line[kept]


def along(lines: Tensor, steps: int = _STEPS) -> Tensor:
    """(..., P, 2) lines to (..., S, 2) places along them."""
    if lines.shape[-2] == 1:
        return lines
    part = (torch.arange(steps, device=lines.device) + 0.5) / steps
    start, end = lines[..., :-1, None, :], lines[..., 1:, None, :]
    return (start + part[:, None] * (end - start)).flatten(-3, -2)


def apart(line: Tensor, other: Tensor) -> Tensor:
    """(S,) how far each place along a line is from another one."""
    return torch.cdist(along(line), along(other, 4 * _STEPS)).amin(1)


def pieces_of(line: Tensor, window: Window, hidden: Sequence[Window]) -> list[Tensor]:
    """What of a (P, 2) line lies in a window and not under others."""
    pieces: list[list[Point]] = []
    for start, end in pairwise(unpadded(line).tolist()):
        for low, high in _seen(start, end, window, hidden):
            first, last = _at(start, end, low), _at(start, end, high)
            if pieces and pieces[-1][-1] == first:
                pieces[-1].append(last)
            else:
                pieces.append([first, last])
    return [torch.tensor(piece) for piece in pieces]


def _seen(start: Point, end: Point, window: Window, hidden: Sequence[Window]) -> Iterator[tuple[float, float]]:
    """The parts, 0..1, of the way from one point to the next that are seen."""
    inside = _inside(start, end, window, _SLACK)
    parts = [] if inside is None else [inside]
    for other in hidden:
        covered = _inside(start, end, other, 0.0)
        if covered is not None:
            parts = [
                part
                for low, high in parts
                for part in ((low, min(high, covered[0])), (max(low, covered[1]), high))
                if part[0] < part[1]
            ]
    yield from parts


def _inside(start: Point, end: Point, window: Window, slack: float) -> tuple[float, float] | None:
    """The part of the way that lies in a window (Liang and Barsky, 1984)."""
    low, high = 0.0, 1.0
    for axis in (0, 1):
        step, least, most = end[axis] - start[axis], window[axis] - slack, window[axis + 2] + slack
        if step == 0:
            if not least <= start[axis] <= most:
                return None
            continue
        enter, leave = sorted(((least - start[axis]) / step, (most - start[axis]) / step))
        low, high = max(low, enter), min(high, leave)
    return (low, high) if low < high else None


def _at(start: Point, end: Point, part: float) -> Point:
    # Exactly the point itself at the ends: pieces go on where the last one ended.
    if part in (0.0, 1.0):
        return end if part else start
    return [one + part * (other - one) for one, other in zip(start, end, strict=True)]
