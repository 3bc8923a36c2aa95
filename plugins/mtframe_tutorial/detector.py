"""The article's object detector: a convolution that says of each cell of the map what is there, and where."""

# Shapes: B images, C classes, P cells of the map, M target boxes (padded), K regions to ignore (padded).

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, generalized_box_iou_loss

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec

# exp(4) times the first guess: keeps a stray step from overflowing.
_LARGEST = 4.0


class GridDetector(nn.Module):
    """Each cell of one map gives a score for each class and for the background, and one box.

    Convolutions keep what is where: what a cell says depends on what lies around it, and is the same wherever
    that is. Fully connected layers, as for faces, would have to learn each place by itself.

    Args:
        features: Maps of the backbone; the one of `stride` is used.
        info: Its `classes` are what is detected.
        stride: Pixels from cell to cell. Of two things in one cell only one is found.
        width: Channels of the convolution.
        score_threshold: Detections below are dropped.
        nms_iou: Of two detections of one class that overlap more than this, the weaker is dropped.

    Raises:
        RecipeError: The backbone has no map of this stride, or an option is out of its range.
    """

    target: ClassVar[str] = "boxes"

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        info: DataInfo,
        *,
        stride: int = 8,
        width: int = 128,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
    ) -> None:
        super().__init__()
        strides = [feature.stride for feature in features]
        if stride not in strides:
            raise RecipeError(f"stride: must be one of the backbone's, {', '.join(map(str, strides))}, got {stride}")
        if width < 1:
            raise RecipeError(f"width: must be 1 or more, got {width}")
        for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
            if not 0 <= value <= 1:
                raise RecipeError(f"{name}: must be 0 to 1, got {value:g}")
        self.stride, self.score_threshold, self.nms_iou = stride, score_threshold, nms_iou
        self.source = strides.index(stride)
        self.hidden = nn.Conv2d(features[self.source].channels, width, 3, padding=1)
        # One more class than there are: without a background, every cell would have to show something.
        self.score = nn.Conv2d(width, len(info.classes) + 1, 1)
        self.box = nn.Conv2d(width, 4, 1)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Feature maps to what each cell says.

        Returns:
            `logits` (B, P, C + 1), the background last; `boxes` (B, P, 4) XYXY and `centres` (P, 2) x and y of the
            cells, both in pixels of the input.
        """
        hidden = F.relu(self.hidden(maps[self.source]))
        logits = self.score(hidden).flatten(2).transpose(1, 2)
        # fp32: a bf16 coordinate of 300 pixels is off by a whole pixel.
        shift, size = self.box(hidden).float().flatten(2).transpose(1, 2).split(2, dim=2)
        centres = _centres(hidden.shape[-2:], self.stride, hidden.device)
        middle = centres + shift * self.stride
        # Of the sides that boxes may have, factors of 2 are as far from each other as they look: hence exp.
        half = size.clamp(max=_LARGEST).exp() * self.stride
        return {"logits": logits, "boxes": torch.cat([middle - half, middle + half], dim=2), "centres": centres}

    @torch.no_grad()
    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """`boxes` (N, 4) XYXY in pixels of the input, `scores` (N,) 0..1 and `labels` (N,), strongest first."""
        scores_BP, labels_BP = outputs["logits"].float().softmax(dim=2)[..., :-1].max(dim=2)
        predictions = []
        for image, (scores, labels) in enumerate(zip(scores_BP, labels_BP, strict=True)):
            sure = scores >= self.score_threshold
            low, high = bounds[image].to(outputs["boxes"]).float().chunk(2)
            boxes = outputs["boxes"][image, sure].float().maximum(low.repeat(2)).minimum(high.repeat(2))
            kept = batched_nms(boxes, scores[sure], labels[sure], self.nms_iou)
            predictions.append({"boxes": boxes[kept], "scores": scores[sure][kept], "labels": labels[sure][kept]})
        return predictions


class DetectorLoss(nn.Module):
    """Cross-entropy for what a cell shows, background included, and an IoU loss for where.

    A cell is to show the box in whose inner half it lies, or whose middle it holds; of several the smallest.

    Args:
        head: The detector.
        box_weight: Weight of the box loss against the cross-entropy.

    Raises:
        RecipeError: A negative weight.
    """

    target: ClassVar[str] = "boxes"

    def __init__(self, head: GridDetector, *, box_weight: float = 2.0) -> None:
        super().__init__()
        if box_weight < 0:
            raise RecipeError(f"box_weight: must be 0 or more, got {box_weight:g}")
        self.stride, self.box_weight = head.stride, box_weight

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch's losses; finite without any box.

        Args:
            outputs: Of the detector.
            targets: `boxes` (B, M, 4) in pixels of the input, `labels` (B, M), `valid` (B, M) bool, and regions to
                ignore: `ignore` (B, K, 4), `ignore_valid` (B, K) bool.

        Returns:
            Scalars `class` and `box`.
        """
        logits_BPC, boxes_BP4 = outputs["logits"].float(), outputs["boxes"]
        owner_BP = assign(outputs["centres"], targets["boxes"].float(), targets["valid"], self.stride)
        shown_BP = owner_BP >= 0
        number = shown_BP.sum().clamp(min=1)

        # One more row, for cells without a box and images without any.
        index_BP = owner_BP.clamp(min=0)
        background = logits_BPC.shape[2] - 1
        labels_BP = F.pad(targets["labels"], (0, 1)).gather(1, index_BP).masked_fill(~shown_BP, background)
        crowd_BP = (_reach(outputs["centres"], targets["ignore"].float()) < 1) & targets["ignore_valid"][..., None]
        entropy_BP = F.cross_entropy(logits_BPC.transpose(1, 2), labels_BP, reduction="none")
        entropy_BP = entropy_BP.masked_fill(crowd_BP.any(dim=1) & ~shown_BP, 0.0)

        wanted_BP4 = F.pad(targets["boxes"].float(), (0, 0, 0, 1)).gather(1, index_BP[..., None].expand(-1, -1, 4))
        # giou rather than the plain IoU, which is 0, and teaches nothing, as long as the boxes are apart.
        box_BP = generalized_box_iou_loss(boxes_BP4, wanted_BP4).masked_fill(~shown_BP, 0.0)
        # Per shown thing, not per cell: most cells are background, and a mean over all would drown the rest.
        return {"class": entropy_BP.sum() / number, "box": self.box_weight * box_BP.sum() / number}


def assign(centres: Tensor, boxes: Tensor, valid: Tensor, stride: int) -> Tensor:
    """Which box each cell is to show.

    Args:
        centres: (P, 2) x and y of the cells.
        boxes: (B, M, 4) XYXY, padded; M may be 0.
        valid: (B, M) bool, false for padding.
        stride: Pixels from cell to cell.

    Returns:
        (B, P) long: index of the box, -1 for background.
    """
    if boxes.shape[1] == 0:
        return boxes.new_full((len(boxes), len(centres)), -1, dtype=torch.long)
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=2)
    # Two cells at least: half of that is the cell that holds the middle.
    inside_BMP = (_reach(centres, boxes, 2 * stride) <= 0.5) & valid[..., None]
    area_BMP = (width * height)[..., None].expand_as(inside_BMP).masked_fill(~inside_BMP, torch.inf)
    smallest, owner_BP = area_BMP.min(dim=1)
    return owner_BP.masked_fill(smallest.isinf(), -1)


def _reach(centres: Tensor, boxes: Tensor, least: float = 0.0) -> Tensor:
    """How far out in each box each cell's centre lies: 0 in its middle, 1 on its border; (B, M, P).

    Boxes count as at least `least` pixels wide and high.
    """
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]).clamp(min=max(least, 1e-3)) / 2
    return ((centres - middle[..., None, :]).abs() / half[..., None, :]).amax(dim=3)


def _centres(shape: Sequence[int], stride: int, device: torch.device) -> Tensor:
    """(P, 2) x and y of the cells of a map, row by row."""
    y, x = (((torch.arange(side, device=device) + 0.5) * stride) for side in shape)
    return torch.cartesian_prod(y, x).flip(1)
