"""Losses of detection heads: of a class score and of a box, for points and for the proposals of a second stage."""

# Shapes: B images, P places that predict (points or proposals), C classes, M target boxes (padded).

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.errors import RecipeError

from .assignment import Matches, match_points, match_proposals
from .box_geometry import BoxOverlap, box_overlap

if TYPE_CHECKING:
    from .dense import DenseHead
    from .rfcn import RFCNHead


class DetectionLoss(nn.Module):
    """Teaches each point the class score and the box of the target that ATSS gives it.

    A point's wanted score is the IoU its box has with the target now (quality focal loss, arXiv:2006.04388,
    eq. 2), so that a high score means a class that is right and a box that fits. Points in regions to be
    ignored (crowds) are not punished for scores. The same for the proposals of a head of two stages.

    Args:
        head: The head that predicts; its `strides` are the levels that targets are spread over, by anchors of its
            `anchor_scale`.
        box: Which overlap the box loss is one minus of.
        beta: Focusing of the score loss: 0 is plain cross-entropy. Not between 0 and 1, where the gradient of a
            perfect score is infinite.
        box_weight: Weight of the box loss against the score loss.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "boxes"

    def __init__(
        self, head: DenseHead | RFCNHead, *, box: BoxOverlap = "giou", beta: float = 2.0, box_weight: float = 2.0
    ) -> None:
        super().__init__()
        if beta < 1 and beta != 0:
            raise RecipeError(f"detection loss: beta must be 0, or 1 or more, got {beta}")
        if box_weight < 0:
            raise RecipeError(f"detection loss: box_weight must not be negative, got {box_weight}")
        self.strides, self.anchor_scale = head.strides, head.anchor_scale
        self.box, self.beta, self.box_weight = box, beta, box_weight

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch's losses, normalised by its number of positive points.

        Args:
            outputs: Of the dense head: `logits` (B, P, C), `boxes` (B, P, 4) and `points` (P, 3). Of the R-FCN head
                also `proposals` (B, K, 4), `refined_logits` (B, K, C) and `refined_boxes` (B, K, 4).
            targets: `boxes` (B, M, 4) in pixels of the input, `labels` (B, M), `valid` (B, M) bool, and
                regions to ignore: `ignore` (B, K, 4), `ignore_valid` (B, K) bool.

        Returns:
            Scalars `score` and `box`, and `second_score` and `second_box` of two stages; finite without any target.
        """
        return _by_stage(self._terms, outputs, targets, self.strides, self.anchor_scale)

    def _terms(self, logits: Tensor, boxes: Tensor, matches: Matches) -> dict[str, Tensor]:
        quality_BP = box_overlap(boxes.detach(), matches.boxes).masked_fill(~matches.positive, 0.0)
        wanted_BPC = torch.zeros_like(logits).scatter(2, matches.labels[..., None], quality_BP[..., None])
        score_BPC = quality_focal_loss(logits, wanted_BPC, self.beta)
        score = score_BPC.masked_fill(matches.ignored[..., None], 0.0).sum() / matches.number
        return {"score": score, "box": self.box_weight * _box_loss(boxes, matches, self.box)}


class CrossEntropyIoULoss(nn.Module):
    """Cross-entropy over the classes and background, and one minus the IoU (after UnitBox, arXiv:1608.01471).

    A softmax knows scores up to a common shift only, so the logit of background is fixed at 0 and heads need no
    channel for it: a class's logit is the logarithm of its odds against background, of which the head's score is the
    sigmoid. Targets are spread over points and proposals as by `detection`.

    Args:
        head: The head that predicts; its `strides` are the levels that targets are spread over, by anchors of its
            `anchor_scale`.
        box: Which overlap the box loss is one minus of.
        box_weight: Weight of the box loss against the cross-entropy.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "boxes"

    def __init__(self, head: DenseHead | RFCNHead, *, box: BoxOverlap = "iou", box_weight: float = 2.0) -> None:
        super().__init__()
        if box_weight < 0:
            raise RecipeError(f"cross-entropy-iou loss: box_weight must not be negative, got {box_weight}")
        self.strides, self.anchor_scale = head.strides, head.anchor_scale
        self.box, self.box_weight = box, box_weight

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch's losses, normalised by its number of positive points.

        Args:
            outputs: As of `DetectionLoss`.
            targets: As of `DetectionLoss`.

        Returns:
            Scalars `cross_entropy` and `box`, and `second_cross_entropy` and `second_box` of two stages; finite
            without any target.
        """
        return _by_stage(self._terms, outputs, targets, self.strides, self.anchor_scale)

    def _terms(self, logits: Tensor, boxes: Tensor, matches: Matches) -> dict[str, Tensor]:
        wanted_BP = (matches.labels + 1).masked_fill(~matches.positive, 0)
        entropy_BP = F.cross_entropy(F.pad(logits, (1, 0)).transpose(1, 2), wanted_BP, reduction="none")
        entropy = entropy_BP.masked_fill(matches.ignored, 0.0).sum() / matches.number
        return {"cross_entropy": entropy, "box": self.box_weight * _box_loss(boxes, matches, self.box)}


def _by_stage(
    terms: Callable[[Tensor, Tensor, Matches], dict[str, Tensor]],
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    strides: Sequence[int],
    anchor_scale: float,
) -> dict[str, Tensor]:
    """The terms of the dense predictions and, where the head has a second stage, those of its proposals."""
    outputs = {name: value.float() for name, value in outputs.items()}
    matches = match_points(outputs["points"], targets, strides, anchor_scale)
    losses = terms(outputs["logits"], outputs["boxes"], matches)
    if "proposals" in outputs:
        matches = match_proposals(outputs["proposals"], targets)
        second = terms(outputs["refined_logits"], outputs["refined_boxes"], matches)
        losses |= {f"second_{name}": value for name, value in second.items()}
    return losses


def _box_loss(boxes: Tensor, matches: Matches, kind: BoxOverlap) -> Tensor:
    loss_BP = 1 - box_overlap(boxes, matches.boxes, kind)
    return loss_BP.masked_fill(~matches.positive, 0.0).sum() / matches.number


def quality_focal_loss(logits: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """Cross-entropy towards a quality in 0..1, weighted by the distance to it (arXiv:2006.04388, eq. 2).

    Args:
        logits: (...) before the sigmoid.
        quality: (...) wanted score, 0 for background.
        beta: Power of the weight.

    Returns:
        (...) loss, not reduced.
    """
    distance = (quality - logits.sigmoid()).abs()
    return distance.pow(beta) * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
