"""Non-maximum suppression, plain and soft: from the scores of all places to the detections of an image."""

# Shapes: B images, P places that predict, C classes, N detections of one image.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from mtframe.errors import RecipeError

from .box_geometry import box_overlap

Nms = Literal["per-class", "class-agnostic", "soft-linear", "soft-gaussian"]

# Width of the Gaussian decay, the value of the paper (arXiv:1704.04503, sec. 3 and 6.1).
_SIGMA = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """How a detection head makes detections of scores. Its fields are the head's options of the same names.

    Attributes:
        nms: `per-class` and `class-agnostic` drop the weaker of two detections (of one class, or of any) that
            overlap more than `nms_iou`. Soft-NMS (arXiv:1704.04503) lowers its score instead, within a class:
            `soft-linear` by 1 - IoU above `nms_iou`, `soft-gaussian` by exp(-IoU² / 0.5) always.
        nms_iou: That overlap.
        score_threshold: Detections below are dropped.
        max_detections: Most detections an image.
        pre_nms: Candidates an image that enter suppression.

    Raises:
        RecipeError: A field is out of its range.
    """

    nms: Nms = "per-class"
    nms_iou: float = 0.6
    score_threshold: float = 0.05
    max_detections: int = 100
    pre_nms: int = 1000

    def __post_init__(self) -> None:
        for name, number in (("max_detections", self.max_detections), ("pre_nms", self.pre_nms)):
            if number < 1:
                raise RecipeError(f"detection head: {name} must be at least 1, got {number}")
        for name, part in (("score_threshold", self.score_threshold), ("nms_iou", self.nms_iou)):
            if not 0 <= part <= 1:
                raise RecipeError(f"detection head: {name} must be within 0..1, got {part}")

    def detect(self, scores: Tensor, boxes: Tensor, bounds: Tensor) -> list[dict[str, Tensor]]:
        """Detections of a batch.

        Args:
            scores: (B, P, C) in 0..1.
            boxes: (B, P, 4) XYXY in pixels of the input.
            bounds: (B, 4) XYXY: where the whole images lie in the input, in its pixels; boxes are clipped to it.

        Returns:
            What `__call__` does, an image each, in pixels of the input.
        """
        classes = scores.shape[2]
        top, index = scores.flatten(1).topk(min(self.pre_nms, scores[0].numel()), dim=1)
        candidates = boxes.gather(1, (index // classes)[..., None].expand(-1, -1, 4))
        return [
            self(_clipped(candidates[image], bounds[image]), top[image], index[image] % classes)
            for image in range(len(top))
        ]

    def merge(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One image's detections under several views, in pixels of the original, put together and suppressed again."""
        return self(*(torch.cat([view[name] for view in predictions]) for name in ("boxes", "scores", "labels")))

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Suppresses detections of one image.

        Args:
            boxes: (N, 4) XYXY.
            scores: (N,) in 0..1.
            labels: (N,) long.

        Returns:
            `boxes`, `scores` and `labels` of those that stay, strongest first.
        """
        # What lies in the padding alone has no area left once clipped to the image.
        useful = (scores >= self.score_threshold) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, labels = boxes[useful], scores[useful], labels[useful]
        if self.nms in ("soft-linear", "soft-gaussian"):
            keep, scores = self._soft(boxes, scores, labels)
            return {"boxes": boxes[keep], "scores": scores, "labels": labels[keep]}
        one_class = self.nms == "class-agnostic"
        keep = nms(boxes, scores, self.nms_iou) if one_class else batched_nms(boxes, scores, labels, self.nms_iou)
        keep = keep[: self.max_detections]
        return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}

    def _soft(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of what stays, and lowered scores. Scores only fall, so those taken first are the strongest."""
        scores = scores.clone()
        kept, values = [labels[:0]], [scores[:0]]
        for _ in range(min(self.max_detections, len(scores))):
            value, best = scores.max(dim=0, keepdim=True)
            kept.append(best)
            values.append(value)
            overlap = box_overlap(boxes, boxes[best]).masked_fill(labels != labels[best], 0.0)
            scores *= self._decay(overlap)
            scores[best] = -math.inf
        indices, lowered = torch.cat(kept), torch.cat(values)
        stays = lowered >= self.score_threshold
        return indices[stays], lowered[stays]

    def _decay(self, overlap: Tensor) -> Tensor:
        if self.nms == "soft-gaussian":
            return (overlap.square() / -_SIGMA).exp()
        return (1 - overlap).where(overlap > self.nms_iou, 1.0)


def _clipped(boxes: Tensor, bounds: Tensor) -> Tensor:
    """(N, 4) boxes, cut to a rectangle (4,)."""
    low, high = bounds.to(boxes).chunk(2)
    return boxes.maximum(low.repeat(2)).minimum(high.repeat(2))
