"""What each place that predicts should say: the points of a dense head, the proposals of a second stage."""

# Shapes: B images, P places (points or proposals), M target boxes and regions to ignore (padded).

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .atss import assign, in_chunks, inside_any
from .box_geometry import box_overlap

# Overlap from which a proposal shows its target (Fast R-CNN, arXiv:1504.08083, sec. 2.3), and part of a proposal in a
# region to ignore from which it is not punished.
_SHOWS = 0.5


@dataclass(frozen=True, slots=True)
class Matches:
    """The target of every place; shapes do not depend on the data.

    Attributes:
        boxes: (B, P, 4) wanted box, where there is one.
        labels: (B, P) long, its class.
        positive: (B, P) bool, whether there is one.
        ignored: (B, P) bool: neither wanted nor to be punished.
    """

    boxes: Tensor
    labels: Tensor
    positive: Tensor
    ignored: Tensor

    @property
    def number(self) -> Tensor:
        """Positive places of the batch, at least 1: what losses are divided by."""
        return self.positive.sum().clamp(min=1)


def match_points(points: Tensor, targets: Mapping[str, Tensor], strides: Sequence[int], anchor_scale: float) -> Matches:
    """Targets of a dense head's points (P, 3), as ATSS assigns them."""
    owner = assign(points, targets["boxes"].float(), targets["valid"], strides, anchor_scale=anchor_scale)
    ignored = inside_any(points, targets["ignore"].float(), targets["ignore_valid"])
    return _matches(owner, ignored, targets)


def match_proposals(proposals: Tensor, targets: Mapping[str, Tensor]) -> Matches:
    """Targets of proposals (B, P, 4): the box of highest IoU from 0.5 on, and that whose best proposal it is.

    The latter gives the second stage something to learn from while proposals are bad.
    """
    # The best proposal of a box counts one more than its IoU, and so is taken before all others.
    best, owner = [proposals.new_full(proposals.shape[:2], 0.0)], [targets["labels"].new_zeros(proposals.shape[:2])]
    start = 0
    for boxes, valid in in_chunks(proposals.shape[1], targets["boxes"].float(), targets["valid"]):
        iou_BPM = box_overlap(proposals[:, :, None], boxes[:, None]).masked_fill(~valid[:, None], 0.0)
        iou_BPM += (iou_BPM == iou_BPM.amax(dim=1, keepdim=True)) & (iou_BPM > 0)
        highest = iou_BPM.max(dim=2)
        best.append(highest.values)
        owner.append(highest.indices + start)
        start += boxes.shape[1]
    value, chunk = torch.stack(best).max(dim=0)
    index = torch.stack(owner).gather(0, chunk[None])[0]
    ignored = _covered(proposals, targets["ignore"].float(), targets["ignore_valid"])
    return _matches(index.masked_fill(value < _SHOWS, -1), ignored, targets)


def _matches(owner: Tensor, ignored: Tensor, targets: Mapping[str, Tensor]) -> Matches:
    # Every place is compared with some box, and those without one are masked: shapes do not depend on the
    # data, and nothing waits for the device. One more row makes it work for a batch without any box.
    positive, index = owner >= 0, owner.clamp(min=0)
    boxes = F.pad(targets["boxes"].float(), (0, 0, 0, 1)).gather(1, index[..., None].expand(-1, -1, 4))
    labels = F.pad(targets["labels"], (0, 1)).gather(1, index)
    return Matches(boxes, labels, positive, ignored & ~positive)


def _covered(proposals: Tensor, regions: Tensor, valid: Tensor) -> Tensor:
    """Whether half of a proposal (B, P, 4) or more lies in one of regions (B, M, 4): (B, P) bool."""
    covered = torch.zeros(proposals.shape[:2], dtype=torch.bool, device=proposals.device)
    area = (proposals[..., 2:] - proposals[..., :2]).prod(dim=-1)[..., None]
    for part, mask in in_chunks(proposals.shape[1], regions, valid):
        low = torch.maximum(proposals[:, :, None, :2], part[:, None, :, :2])
        high = torch.minimum(proposals[:, :, None, 2:], part[:, None, :, 2:])
        shared = (high - low).clamp(min=0).prod(dim=-1)
        covered |= ((shared >= _SHOWS * area) & mask[:, None]).any(dim=-1)
    return covered
