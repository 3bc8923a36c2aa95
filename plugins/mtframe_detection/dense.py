"""Dense anchor-free detection head: FCOS geometry, quality carried in the class score."""

# Shapes: B images, C classes, P points of all levels, H and W of one level's map.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError
from mtframe.model import FeaturePyramid, group_norm

from .atss import assign
from .box_geometry import distances_to_boxes, grid_points, reach_out
from .suppression import Nms, Suppression

if TYPE_CHECKING:
    from mtframe.data import DataInfo
    from mtframe.kinds import FeatureSpec

# How rare things are at the start: without it the background's loss drowns everything (RetinaNet,
# arXiv:1708.02002, 4.1).
_PRIOR = 0.01

# exp(5) strides, far beyond any image, and exp(-5): keeps a stray step from overflowing.
_MOST = 5.0


class DenseHead(nn.Module):
    """Every point of a feature pyramid says what it sees, and how far the four sides of its box are.

    FCOS geometry (arXiv:1904.01355) without its centre-ness branch: the class score is trained towards the
    predicted box's IoU instead (generalized focal loss, arXiv:2006.04388), so it ranks boxes by itself. A box may
    also lie beside its point, by up to half a stride, since the smallest hold none.

    Args:
        features: The backbone's feature maps.
        info: Its `classes` are what is detected.
        width: Channels of the pyramid and of the towers.
        depth: 3x3 convolutions in each of the two towers.
        strides: Pyramid levels in pixels. Default: the backbone's own from 7 up, doubled until about 64.
        anchor_scale: Side of the square that stands for a point when boxes are assigned to points, and that its box
            is at first, in strides.
        score_threshold: Detections below are dropped.
        nms: Which of overlapping detections stay: `per-class` or `class-agnostic` drop the weaker, `soft-linear`
            and `soft-gaussian` (Soft-NMS, arXiv:1704.04503) lower the score of the weaker of one class.
        nms_iou: Overlap above which they do; `soft-gaussian` has none.
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
        anchor_scale: float = 8.0,
        score_threshold: float = 0.05,
        nms: Nms = "per-class",
        nms_iou: float = 0.6,
        max_detections: int = 100,
        pre_nms: int = 1000,
    ) -> None:
        super().__init__()
        if width < 1:
            raise RecipeError(f"dense head: width must be at least 1, got {width}")
        if depth < 0:
            raise RecipeError(f"dense head: depth must not be negative, got {depth}")
        if not 1 <= anchor_scale <= 64:
            raise RecipeError(f"dense head: anchor_scale must be within 1..64, got {anchor_scale:g}")
        self.anchor_scale = anchor_scale
        self.strides = tuple(strides) if strides else _default_strides(features)
        if list(self.strides) != sorted(set(self.strides)) or self.strides[0] < 1:
            raise RecipeError(f"dense head: strides must rise, as in [8, 16, 32], got {list(self.strides)}")
        self.classes = len(info.classes)
        self.suppression = Suppression(
            nms=nms, nms_iou=nms_iou, score_threshold=score_threshold, max_detections=max_detections, pre_nms=pre_nms
        )
        self.pyramid = FeaturePyramid(features, width, self.strides)
        self.class_tower, self.box_tower = tower(width, depth), tower(width, depth)
        self.score = nn.Conv2d(width, self.classes, 3, padding=1)
        self.distance = nn.Conv2d(width, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        initialise(self.score, -math.log(1 / _PRIOR - 1))
        # The first boxes are the anchors that the assignment reasons with.
        initialise(self.distance, math.log(anchor_scale / 2))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Feature maps to predictions of all levels, one after the other.

        Returns:
            `logits` (B, P, C); `boxes` (B, P, 4) XYXY in pixels of the input; `points` (P, 3) x, y and
            stride.
        """
        return self.read(self.pyramid(maps))

    def read(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """What `forward` gives, of the pyramid's levels."""
        shapes = [(level.shape[-2], level.shape[-1]) for level in levels]
        points = grid_points(shapes, self.strides, levels[0].device)
        logits, distances = [], []
        for level, scale, stride in zip(levels, self.scales, self.strides, strict=True):
            logits.append(self.score(self.class_tower(level)).flatten(2))
            # fp32: a bf16 coordinate of 300 pixels is off by a whole pixel.
            raw = self.distance(self.box_tower(level)).flatten(2).float() * scale
            distances.append(reach_out(raw.clamp(-_MOST, _MOST).exp()) * stride)
        boxes = distances_to_boxes(points[:, :2], torch.cat(distances, dim=2).transpose(1, 2))
        return {"logits": torch.cat(logits, dim=2).transpose(1, 2), "boxes": boxes, "points": points}

    @torch.no_grad()
    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """Detections an image, strongest first.

        Returns:
            `boxes` (N, 4) XYXY in pixels of the input, `scores` (N,) 0..1 and `labels` (N,) long each.
        """
        return self.suppression.detect(outputs["logits"].float().sigmoid(), outputs["boxes"].float(), bounds)

    @torch.no_grad()
    def unlearnable(self, targets: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """(B,) long: boxes of each image of a collated batch that ATSS gives no point, in inputs of (height, width)."""
        shapes = [(math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in self.strides]
        points = grid_points(shapes, self.strides, targets["boxes"].device)
        owner = assign(points, targets["boxes"].float(), targets["valid"], self.strides, anchor_scale=self.anchor_scale)
        # One more for the background.
        learned = torch.zeros(len(owner), targets["valid"].shape[1] + 1, dtype=torch.bool, device=owner.device)
        learned.scatter_(1, owner + 1, True)
        return (targets["valid"] & ~learned[:, 1:]).sum(dim=1)

    def merge_views(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One image's detections under several views (mirrored, rescaled) put together and suppressed again."""
        return self.suppression.merge(predictions)


def _default_strides(features: Sequence[FeatureSpec]) -> tuple[int, ...]:
    strides = sorted({feature.stride for feature in features if feature.stride >= 7})
    strides = strides or [max(feature.stride for feature in features)]
    while strides[-1] * 2 <= 64:
        strides.append(strides[-1] * 2)
    return tuple(strides)


def initialise(layer: nn.Conv2d, bias: float) -> None:
    """Small random weights and the same bias everywhere."""
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)


def tower(width: int, depth: int) -> nn.Sequential:
    """`depth` 3 × 3 convolutions, each followed by a norm and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        # Group rather than batch norm: the tower sees levels of very different statistics.
        layers += [
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            group_norm(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
