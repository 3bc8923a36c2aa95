"""Arithmetic on boxes (XYXY, pixels): overlap, refinement, and the grid of points that predict them."""

# Shapes: B images, P points of all levels, M target boxes, ... any.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

BoxOverlap = Literal["iou", "giou", "diou", "ciou"]

_EPSILON = 1e-7

# exp(2) times a box's size, either way: keeps a stray step from overflowing.
_MOST = 2.0


def grid_points(shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device) -> Tensor:
    """Centres of the cells of each level's map.

    Args:
        shapes: (height, width) of each level's map, in cells.
        strides: Pixels from cell to cell of each level.
        device: Where the result lives.

    Returns:
        (P, 3) float32: x, y and stride of each point in pixels; levels one after the other, each row by row.
    """
    levels = []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
        columns, rows = x.repeat(height), y.repeat_interleave(width)
        levels.append(torch.stack([columns, rows, torch.full_like(columns, stride)], dim=1))
    return torch.cat(levels)


def distances_to_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """FCOS geometry (arXiv:1904.01355, eq. 1): boxes from a point's distances to their sides.

    Args:
        points: (P, 2) x and y.
        distances: (..., P, 4) left, top, right, bottom; pixels.

    Returns:
        (..., P, 4) boxes.
    """
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def reach_out(sides: Tensor) -> Tensor:
    """Lets a point's box lie beside it by up to half a stride, so that boxes that hold no point can be predicted.

    Width and height stay; the centre moves on by half a stride at most, and by less the more central the point is.
    Any box that holds the point when it is grown by half a stride on all sides has such distances.

    Args:
        sides: (..., 4, P) above 0: left, top, right, bottom, in strides.

    Returns:
        (..., 4, P) distances in strides, above -0.5.
    """
    near, far = sides.chunk(2, dim=-2)
    further = (far - near) / (2 * (far + near))
    return torch.cat([near - further, far + further], dim=-2)


def refine(boxes: Tensor, changes: Tensor) -> Tensor:
    """Moves boxes (..., 4) by a part of their size and scales them: `changes` (..., 4) are x, y and logarithms."""
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + size * (0.5 + changes[..., :2])
    half = size * (changes[..., 2:].clamp(-_MOST, _MOST).exp() / 2)
    return torch.cat([centre - half, centre + half], dim=-1)


def centres_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (..., 2) lie strictly inside boxes (..., 4); the leading shapes broadcast."""
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(dim=-1)


def box_overlap(boxes: Tensor, targets: Tensor, kind: BoxOverlap = "iou") -> Tensor:
    """How well boxes fit targets, pair by pair; 1 is a perfect fit, and `1 - overlap` is the loss.

    `iou` is 0..1; the others go down to -1 (`ciou` to -2) for boxes that are apart, so that these still
    learn: `giou` arXiv:1902.09630, `diou` and `ciou` arXiv:1911.08287. Finite for boxes without area.

    Args:
        boxes: (..., 4) XYXY.
        targets: (..., 4) XYXY; the leading shapes broadcast.
        kind: Which overlap.

    Returns:
        (...) float.
    """
    size, target_size = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    shared = (torch.minimum(boxes[..., 2:], targets[..., 2:]) - torch.maximum(boxes[..., :2], targets[..., :2])).clamp(
        min=0
    )
    intersection = shared.prod(dim=-1)
    union = size.prod(dim=-1) + target_size.prod(dim=-1) - intersection
    iou = intersection / (union + _EPSILON)
    if kind == "iou":
        return iou
    hull = torch.maximum(boxes[..., 2:], targets[..., 2:]) - torch.minimum(boxes[..., :2], targets[..., :2])
    if kind == "giou":
        area = hull.prod(dim=-1)
        return iou - (area - union) / (area + _EPSILON)
    apart = (boxes[..., :2] + boxes[..., 2:] - targets[..., :2] - targets[..., 2:]) / 2
    diou = iou - apart.square().sum(dim=-1) / (hull.square().sum(dim=-1) + _EPSILON)
    if kind == "diou":
        return diou
    angle = torch.atan2(size[..., 0], size[..., 1] + _EPSILON)
    target_angle = torch.atan2(target_size[..., 0], target_size[..., 1] + _EPSILON)
    aspect = (angle - target_angle).square() * (4 / math.pi**2)
    # eq. 11: the trade-off is a weight, not something to learn from.
    trade_off = (aspect / (1 - iou + aspect + _EPSILON)).detach()
    return diou - trade_off * aspect
