"""The dense head's loss: quality focal loss and an IoU loss on the points that ATSS picks."""

# Shapes: B images, P points of all levels, C classes, M target boxes (padded).

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.errors import RecipeError

from ._assign import assign, inside_any
from ._geometry import BoxOverlap, box_overlap

if TYPE_CHECKING:
    from ._head import DenseHead


class DetectionLoss(nn.Module):
    """Teaches each point the class score and the box of the target that ATSS gives it.

    A point's wanted score is the IoU its box has with the target now (quality focal loss, arXiv:2006.04388,
    eq. 2), so that a high score means a class that is right and a box that fits. Points in regions to be
    ignored (crowds) are not punished for scores.

    Args:
        head: The head that predicts; its `strides` are the levels that targets are spread over.
        box: Which overlap the box loss is one minus of.
        beta: Focusing of the score loss: 0 is plain cross-entropy. Not between 0 and 1, where the gradient of a
            perfect score is infinite.
        box_weight: Weight of the box loss against the score loss.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "boxes"

    def __init__(
        self, head: DenseHead, *, box: BoxOverlap = "giou", beta: float = 2.0, box_weight: float = 2.0
    ) -> None:
        super().__init__()
        if beta < 1 and beta != 0:
            raise RecipeError(f"detection loss: beta must be 0, or 1 or more, got {beta}")
        if box_weight < 0:
            raise RecipeError(f"detection loss: box_weight must not be negative, got {box_weight}")
        self.strides = head.strides
        self.box, self.beta, self.box_weight = box, beta, box_weight

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch's losses, normalised by its number of positive points.

        Args:
            outputs: Of the dense head: `logits` (B, P, C), `boxes` (B, P, 4) and `points` (P, 3).
            targets: `boxes` (B, M, 4) in pixels of the input, `labels` (B, M), `valid` (B, M) bool, and
                regions to ignore: `ignore` (B, K, 4), `ignore_valid` (B, K) bool.

        Returns:
            Scalars `score` and `box`; finite without any target.
        """
        logits_BPC, boxes_BP4, points_P3 = (outputs[name].float() for name in ("logits", "boxes", "points"))
        owner_BP = assign(points_P3, targets["boxes"].float(), targets["valid"], self.strides)
        positive_BP = owner_BP >= 0
        number = positive_BP.sum().clamp(min=1)

        # Every point is compared with some box, and those without one are masked: shapes do not depend on the
        # data, and nothing waits for the device. One more row makes it work for a batch without any box.
        index_BP = owner_BP.clamp(min=0)
        wanted_BP4 = F.pad(targets["boxes"].float(), (0, 0, 0, 1)).gather(1, index_BP[..., None].expand(-1, -1, 4))
        labels_BP = F.pad(targets["labels"], (0, 1)).gather(1, index_BP)
        quality_BP = box_overlap(boxes_BP4.detach(), wanted_BP4).masked_fill(~positive_BP, 0.0)
        wanted_BPC = torch.zeros_like(logits_BPC).scatter(2, labels_BP[..., None], quality_BP[..., None])
        crowded_BP = inside_any(points_P3, targets["ignore"].float(), targets["ignore_valid"]) & ~positive_BP
        score_BPC = quality_focal_loss(logits_BPC, wanted_BPC, self.beta)
        score = score_BPC.masked_fill(crowded_BP[..., None], 0.0).sum() / number
        box_BP = 1 - box_overlap(boxes_BP4, wanted_BP4, self.box)
        box = box_BP.masked_fill(~positive_BP, 0.0).sum() / number
        return {"score": score, "box": self.box_weight * box}


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
