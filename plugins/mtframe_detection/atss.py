"""Which points learn which boxes: adaptive training sample selection (ATSS, arXiv:1912.02424)."""

# Shapes: B images, M target boxes (padded), P points of all levels, K candidate points of a box.

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .box_geometry import box_overlap, centres_inside

# Elements of the largest temporary, boxes times points: bounds memory for images full of boxes.
_CHUNK = 1 << 24


def assign(
    points: Tensor,
    boxes: Tensor,
    valid: Tensor,
    strides: Sequence[int],
    *,
    anchor_scale: float = 8.0,
    candidates: int = 9,
) -> Tensor:
    """Gives each point the box it should predict, or none.

    For each box: the `candidates` points of each level nearest to its centre; of these, those whose anchor's IoU
    with the box reaches mean plus standard deviation over all candidates, and that lie inside the box. The cell of
    the finest level that holds the box's centre counts as inside, so that boxes between the points have one too. A
    point that several boxes want takes the one of highest IoU (the first of equals).

    Args:
        points: (P, 3) x, y, stride.
        boxes: (B, M, 4) XYXY, padded; M may be 0.
        valid: (B, M) bool, false for padding.
        strides: Those of the levels. Not read off the points: shapes would depend on what is in them.
        anchor_scale: Strides a side of the square anchor that stands for a point in the statistics (8 in section 4.2).
        candidates: Points per level and box.

    Returns:
        (B, P) long: index of the box, -1 for background.
    """
    images, count = valid.shape
    if count == 0:
        return torch.full((images, len(points)), -1, dtype=torch.long, device=points.device)
    wanted = [
        _candidates(points, part, mask, strides, anchor_scale, candidates)
        for part, mask in in_chunks(len(points), boxes, valid)
    ]
    index_BMK = torch.cat([index for index, _ in wanted], dim=1)
    iou_BMK = torch.cat([iou for _, iou in wanted], dim=1)
    return _resolve(index_BMK, iou_BMK, len(points))


def _candidates(
    points: Tensor, boxes: Tensor, valid: Tensor, strides: Sequence[int], anchor_scale: float, number: int
) -> tuple[Tensor, Tensor]:
    """Candidate points (B, M, K) of each box and their IoU with it, -1 where a candidate is not taken."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    x, y, _ = points.unbind(dim=1)
    distance_BMP = (centres[..., 0:1] - x).square() + (centres[..., 1:2] - y).square()
    nearest = [
        distance_BMP.masked_fill(points[:, 2] != stride, torch.inf).topk(min(number, len(points)), largest=False)
        for stride in strides
    ]
    index_BMK = torch.cat([found.indices for found in nearest], dim=-1)
    # A level of fewer points is filled up with those of others, which do not count.
    known = torch.cat([found.values for found in nearest], dim=-1).isfinite()
    centre, half = points[index_BMK][..., :2], points[index_BMK][..., 2:] * (anchor_scale / 2)
    anchors = torch.cat([centre - half, centre + half], dim=-1)
    iou = box_overlap(anchors, boxes[:, :, None])
    count = known.sum(dim=-1, keepdim=True)
    mean = iou.where(known, 0.0).sum(dim=-1, keepdim=True) / count
    variance = (iou - mean).square().where(known, 0.0).sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1)
    within = centres_inside(centre, boxes[:, :, None]) | _holds(points[index_BMK], centres[:, :, None], min(strides))
    inside = iou.where(known & within & valid[..., None], -1.0)
    # Where anchors hold the whole box, a level's IoUs are equal and can all miss the threshold; with two
    # levels they always do. The best are taken all the same.
    threshold = (mean + variance.sqrt()).minimum(inside.amax(dim=-1, keepdim=True))
    return index_BMK, inside.where(inside >= threshold, -1.0)


def _holds(points: Tensor, centres: Tensor, finest: int) -> Tensor:
    """Whether the cells of points (..., 3) are of the finest level and hold centres (..., 2)."""
    near = ((points[..., :2] - centres).abs() <= finest / 2).all(dim=-1)
    return near & (points[..., 2] == finest)


def _resolve(index_BMK: Tensor, iou_BMK: Tensor, points: int) -> Tensor:
    """The box of highest IoU among those that want a point."""
    images, boxes, number = index_BMK.shape
    index, iou = index_BMK.flatten(1), iou_BMK.flatten(1)
    best_BP = iou.new_full((images, points), -1.0).scatter_reduce(1, index, iou, "amax")
    owner = torch.arange(boxes, device=index.device).repeat_interleave(number).expand(images, -1)
    wins = (iou >= 0) & (iou == best_BP.gather(1, index))
    nobody = boxes
    owner_BP = index.new_full((images, points), nobody).scatter_reduce(1, index, owner.where(wins, nobody), "amin")
    return owner_BP.masked_fill(owner_BP == nobody, -1)


def inside_any(points: Tensor, boxes: Tensor, valid: Tensor) -> Tensor:
    """Whether each of points (P, 3) lies in at least one valid box of (B, M, 4): (B, P) bool."""
    inside_BP = torch.zeros(len(boxes), len(points), dtype=torch.bool, device=points.device)
    for part, mask in in_chunks(len(points), boxes, valid):
        inside_BPM = centres_inside(points[None, :, None, :2], part[:, None])
        inside_BP |= (inside_BPM & mask[:, None]).any(dim=-1)
    return inside_BP


def in_chunks(places: int, boxes: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Boxes (B, M, 4) and their mask (B, M), in parts for which (B, places, M) stays small; no part of no boxes."""
    if boxes.shape[1]:
        size = max(1, _CHUNK // (len(boxes) * places))
        yield from zip(boxes.split(size, dim=1), valid.split(size, dim=1), strict=True)
