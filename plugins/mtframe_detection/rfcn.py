"""R-FCN: a second stage over the dense head's proposals, by position-sensitive maps (arXiv:1605.06409)."""

# Shapes: B images, C classes, P points of all levels, K proposals.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError

from .box_geometry import box_overlap, refine
from .dense import DenseHead, initialise, tower
from .pooling import position_sensitive_pool
from .suppression import Nms

if TYPE_CHECKING:
    from mtframe.data import DataInfo
    from mtframe.kinds import FeatureSpec

# Of two proposals that overlap more, the weaker comes after all that do not (Faster R-CNN, arXiv:1506.01497, sec. 3.3).
_PROPOSAL_IOU = 0.7

# Points that are compared for each proposal that is wanted.
_COMPARED = 4

# Pairs of an image that are compared at once, unless a single row has more: bounds memory for many proposals.
_CHUNK = 1 << 18


class RFCNHead(nn.Module):
    """The dense head, whose best boxes are scored and placed once more by the parts that they consist of.

    For every class and each of `bins` × `bins` parts of a box there is one map, which answers where it sees that
    part of that class. A proposal reads each part from its own map, and the mean is its vote: a box that is off by
    one part of the object gets little. Maps for its place and size, of all classes together, work likewise.

    Votes are added to the dense head's log-odds, so that the second stage starts as good as the first and learns
    where that is wrong. In the paper proposals have no class, and votes are all there is.

    Args:
        features: The backbone's feature maps.
        info: Its `classes` are what is detected.
        proposals: Boxes of the dense head that are scored again, an image.
        bins: Parts of a box, a side.
        pool_stride: Which of the pyramid's levels has the position-sensitive maps. Default: the finest.
        width, depth, strides, anchor_scale: As in the head `dense` (see `mtframe plugins show head dense`), whose
            pyramid and towers they shape; the second stage has one tower of one convolution.
        score_threshold, nms, nms_iou, max_detections, pre_nms: As in the head `dense`.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "boxes"

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        info: DataInfo,
        *,
        proposals: int = 100,
        bins: int = 3,
        pool_stride: int | None = None,
        width: int = 128,
        depth: int = 2,
        strides: tuple[int, ...] | None = None,
        anchor_scale: float = 8.0,
        score_threshold: float = 0.05,
        nms: Nms = "per-class",
        nms_iou: float = 0.6,
        max_detections: int = 100,
        pre_nms: int = 1000,
    ) -> None:
        super().__init__()
        for name, number in (("proposals", proposals), ("bins", bins)):
            if number < 1:
                raise RecipeError(f"rfcn head: {name} must be at least 1, got {number}")
        self.dense = DenseHead(
            features, info, width=width, depth=depth, strides=strides, anchor_scale=anchor_scale,
            score_threshold=score_threshold, nms=nms, nms_iou=nms_iou, max_detections=max_detections, pre_nms=pre_nms,
        )  # fmt: skip
        self.strides, self.anchor_scale = self.dense.strides, self.dense.anchor_scale
        self.pool_stride = self.strides[0] if pool_stride is None else pool_stride
        if self.pool_stride not in self.strides:
            raise RecipeError(f"rfcn head: pool_stride must be one of {list(self.strides)}, got {pool_stride}")
        self.proposals, self.bins = proposals, bins
        self.tower = tower(width, 1)
        self.score_maps = nn.Conv2d(width, self.dense.classes * bins**2, 1)
        self.box_maps = nn.Conv2d(width, 4 * bins**2, 1)
        initialise(self.score_maps, 0.0)
        initialise(self.box_maps, 0.0)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Feature maps to predictions of both stages.

        Returns:
            What the dense head gives, and of the second stage `proposals` (B, K, 4) XYXY in pixels of the input,
            `refined_logits` (B, K, C) and `refined_boxes` (B, K, 4).
        """
        levels = self.dense.pyramid(maps)
        outputs = self.dense.read(levels)
        level = levels[self.strides.index(self.pool_stride)]
        # The first stage learns from its own loss alone.
        logits, boxes = outputs["logits"].detach().float(), outputs["boxes"].detach()
        index_BK = propose(logits.amax(dim=2).sigmoid(), boxes, self.proposals)
        # Samples outside of the map are 0: parts of a box that the image does not show would dilute its score.
        edge = level.new_tensor([level.shape[-1], level.shape[-2]] * 2, dtype=torch.float32) * self.pool_stride
        proposals = _pick(boxes, index_BK).clamp(min=0).minimum(edge)
        features = self.tower(level)
        position_maps = torch.cat([self.score_maps(features), self.box_maps(features)], dim=1).float()
        votes = position_sensitive_pool(position_maps, proposals, self.bins, self.pool_stride).mean(dim=(-2, -1))
        return {
            **outputs,
            "proposals": proposals,
            "refined_logits": _pick(logits, index_BK) + votes[..., :-4],
            "refined_boxes": refine(proposals, votes[..., -4:]),
        }

    @torch.no_grad()
    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """Detections an image, strongest first.

        Returns:
            `boxes` (N, 4) XYXY in pixels of the input, `scores` (N,) 0..1 and `labels` (N,) long each.
        """
        scores, boxes = outputs["refined_logits"].sigmoid(), outputs["refined_boxes"]
        return self.dense.suppression.detect(scores, boxes, bounds)

    def unlearnable(self, targets: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """(B,) long: boxes that no point of the first stage learns."""
        return self.dense.unlearnable(targets, size)

    def merge_views(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One image's detections under several views (mirrored, rescaled) put together and suppressed again."""
        return self.dense.suppression.merge(predictions)


@torch.no_grad()
def propose(scores: Tensor, boxes: Tensor, number: int) -> Tensor:
    """The strongest boxes, those first that no stronger one covers; of a number that does not depend on the data.

    All stronger boxes count, suppressed or not (Fast NMS, arXiv:1904.02689, sec. 3.3), which needs no loop.

    Args:
        scores: (B, P) in 0..1.
        boxes: (B, P, 4) XYXY.
        number: How many; all P where there are fewer.

    Returns:
        (B, K) indices.
    """
    top, index = scores.topk(min(_COMPARED * number, scores.shape[1]), dim=1)
    covered = _covered(_pick(boxes, index))
    chosen = (top - covered.float()).topk(min(number, scores.shape[1]), dim=1).indices
    return index.gather(1, chosen)


def _covered(boxes: Tensor) -> Tensor:
    """Whether each of boxes (B, K, 4) overlaps one before it by more than `_PROPOSAL_IOU`: (B, K) bool."""
    number = boxes.shape[1]
    # Not by the size of the batch: an exported model would take one size only.
    rows = max(1, _CHUNK // number)
    parts = []
    for start in range(0, number, rows):
        part = boxes[:, start : start + rows]
        before = boxes[:, : start + rows]
        overlap = box_overlap(part[:, :, None], before[:, None])
        parts.append(overlap.tril(diagonal=start - 1).amax(dim=2) > _PROPOSAL_IOU)
    return torch.cat(parts, dim=1)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Rows (B, K, ...) of values (B, P, D) at index (B, K)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
