"""Dense anchor-free detection head: FCOS geometry, quality carried in the class score."""

# Shapes: B images, C classes, P points of all levels, H and W of one level's map.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from mtframe.errors import RecipeError
from mtframe.model import FeaturePyramid, group_norm

from ._assign import ANCHOR_SCALE
from ._geometry import distances_to_boxes, grid_points

if TYPE_CHECKING:
    from mtframe.data import DataInfo, Geometry
    from mtframe.kinds import FeatureSpec

# How rare things are at the start: without it the background's loss drowns everything (RetinaNet,
# arXiv:1708.02002, 4.1).
_PRIOR = 0.01

# exp(5) strides, far beyond any image: keeps a stray step from overflowing.
_LONGEST = 5.0


class DenseHead(nn.Module):
    """Every point of a feature pyramid says what it sees, and how far the four sides of its box are.

    FCOS geometry (arXiv:1904.01355) without its centre-ness branch: the class score is trained towards the
    predicted box's IoU instead (generalized focal loss, arXiv:2006.04388), so it ranks boxes by itself.

    Args:
        features: The backbone's feature maps.
        info: Its `classes` are what is detected.
        width: Channels of the pyramid and of the towers.
        depth: 3x3 convolutions in each of the two towers.
        strides: Pyramid levels in pixels. Default: the backbone's own from 7 up, doubled until about 64.
        score_threshold: Detections below are dropped.
        nms_iou: Of two detections of one class that overlap more than this, the weaker is dropped.
        max_detections: Most detections an image.
        pre_nms: Candidates an image that enter suppression.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "boxes"

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        info: DataInfo,
        *,
        width: int = 128,
        depth: int = 2,
        strides: tuple[int, ...] | None = None,
        score_threshold: float = 0.05,
        nms_iou: float = 0.6,
        max_detections: int = 100,
        pre_nms: int = 1000,
    ) -> None:
        super().__init__()
        for name, number in (("width", width), ("max_detections", max_detections), ("pre_nms", pre_nms)):
            if number < 1:
                raise RecipeError(f"dense head: {name} must be at least 1, got {number}")
        for name, part in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
            if not 0 <= part <= 1:
                raise RecipeError(f"dense head: {name} must be within 0..1, got {part}")
        if depth < 0:
            raise RecipeError(f"dense head: depth must not be negative, got {depth}")
        self.strides = tuple(strides) if strides else _default_strides(features)
        if list(self.strides) != sorted(set(self.strides)) or self.strides[0] < 1:
            raise RecipeError(f"dense head: strides must rise, as in [8, 16, 32], got {list(self.strides)}")
        self.classes = len(info.classes)
        self.score_threshold, self.nms_iou = score_threshold, nms_iou
        self.max_detections, self.pre_nms = max_detections, pre_nms
        self.pyramid = FeaturePyramid(features, width, self.strides)
        self.class_tower, self.box_tower = _tower(width, depth), _tower(width, depth)
        self.score = nn.Conv2d(width, self.classes, 3, padding=1)
        self.distance = nn.Conv2d(width, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        _initialise(self.score, -math.log(1 / _PRIOR - 1))
        # The first boxes are the anchors that the assignment reasons with.
        _initialise(self.distance, math.log(ANCHOR_SCALE / 2))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Feature maps to predictions of all levels, one after the other.

        Returns:
            `logits` (B, P, C); `boxes` (B, P, 4) XYXY in pixels of the input; `points` (P, 3) x, y and
            stride.
        """
        levels = self.pyramid(maps)
        points = grid_points([level.shape[-2:] for level in levels], self.strides, levels[0].device)
        logits, distances = [], []
        for level, scale, stride in zip(levels, self.scales, self.strides, strict=True):
            logits.append(self.score(self.class_tower(level)).flatten(2))
            # fp32: a bf16 coordinate of 300 pixels is off by a whole pixel.
            raw = self.distance(self.box_tower(level)).flatten(2).float() * scale
            distances.append(raw.clamp(max=_LONGEST).exp() * stride)
        boxes = distances_to_boxes(points[:, :2], torch.cat(distances, dim=2).transpose(1, 2))
        return {"logits": torch.cat(logits, dim=2).transpose(1, 2), "boxes": boxes, "points": points}

    @torch.no_grad()
    def predict(self, outputs: Mapping[str, Tensor], geometry: Geometry) -> list[dict[str, Tensor]]:
        """Detections an image, strongest first.

        Returns:
            `boxes` (N, 4) XYXY in pixels of the original, `scores` (N,) 0..1 and `labels` (N,) long each.
        """
        scores_BPC = outputs["logits"].float().sigmoid()
        top, index = scores_BPC.flatten(1).topk(min(self.pre_nms, scores_BPC[0].numel()), dim=1)
        labels = index % self.classes
        boxes = outputs["boxes"].float().gather(1, (index // self.classes)[..., None].expand(-1, -1, 4))
        return [
            self._suppress(geometry.to_original(boxes[image], image), top[image], labels[image])
            for image in range(len(top))
        ]

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        # What lies in the padding alone has no area left once clipped to the image.
        useful = (scores >= self.score_threshold) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, labels = boxes[useful], scores[useful], labels[useful]
        keep = batched_nms(boxes, scores, labels, self.nms_iou)[: self.max_detections]
        return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}


def _default_strides(features: Sequence[FeatureSpec]) -> tuple[int, ...]:
    strides = sorted({feature.stride for feature in features if feature.stride >= 7})
    strides = strides or [max(feature.stride for feature in features)]
    while strides[-1] * 2 <= 64:
        strides.append(strides[-1] * 2)
    return tuple(strides)


def _initialise(layer: nn.Conv2d, bias: float) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)


def _tower(width: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        # Group rather than batch norm: the tower sees levels of very different statistics.
        layers += [
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            group_norm(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
