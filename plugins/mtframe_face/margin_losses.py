"""Losses over cosines to class centres with a margin: CosFace and ArcFace, and what AdaFace shares with them."""

# Shapes: B images, D numbers in an embedding, K classes (people) that enter a step.

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError

from ._centres import count_classes, count_sampled, cross_entropy, sample_classes, unit_rows
from .embedding import EmbeddingHead


class MarginLoss(nn.Module):
    """Cross entropy of cosines to class centres, the right class's made harder by a margin.

    A network from scratch that must hold the full margin at once tends to collapse, above all with few
    pictures a person; so the margin grows linearly from 0 over the first `warmup` of the training.
    """

    target: ClassVar[str] = "identity"
    max_margin: ClassVar[float]

    def __init__(
        self,
        head: EmbeddingHead,
        info: DataInfo,
        *,
        margin: float,
        scale: float | None,
        warmup: float,
        sample: float,
    ) -> None:
        super().__init__()
        if not 0 <= margin <= self.max_margin:
            raise RecipeError(f"margin: must be 0 to {self.max_margin:g}, got {margin:g}")
        if scale is not None and scale <= 0:
            raise RecipeError(f"scale: must be above 0, or null to choose it by the number of people; got {scale:g}")
        if not 0 <= warmup <= 1:
            raise RecipeError(f"warmup: must be 0 to 1, a part of the training; got {warmup:g}")
        classes = count_classes(info)
        self.sampled = count_sampled(classes, sample)
        self.margin, self.warmup, self.progress = margin, warmup, 1.0
        self.scale = scale if scale is not None else self._balanced_scale(self.sampled)
        self.centres = nn.Parameter(torch.randn(classes, head.dim) / math.sqrt(head.dim))

    def set_progress(self, fraction: float) -> None:
        """Takes note of the part of training done, 0..1."""
        self.progress = fraction

    @property
    def current_margin(self) -> float:
        """The margin at this point of training."""
        return self.margin * min(1.0, self.progress / self.warmup) if self.warmup else self.margin

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`identity`: mean over the images whose label is a class; 0 if there is none."""
        embeddings_BD, labels_B = outputs["embedding"], targets["label"]
        # fp32: cos(θ + m) loses its last bits in bf16, and the scale multiplies the error.
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            embeddings_BD = embeddings_BD.float()
            quality_B1 = self._quality(embeddings_BD, labels_B)
            centres_KD, labels_B = self._entering(labels_B)
            cosines_BK = F.linear(F.normalize(embeddings_BD), unit_rows(centres_KD.float()))
            right_B1 = labels_B.clamp(min=0)[:, None]
            # Indexed, since the gradient of gather() would keep the cosines. The rest is done in place: with many
            # people a copy of the logits is larger than what the backbone keeps.
            right_cosines_B1 = cosines_BK[torch.arange(len(labels_B), device=labels_B.device)[:, None], right_B1]
            harder_B1 = self._harder(right_cosines_B1, self.current_margin, quality_B1)
            logits_BK = cosines_BK.scatter_(1, right_B1, harder_B1).mul_(self.scale)
            return {"identity": cross_entropy(logits_BK, labels_B)}

    def _entering(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Centres that enter this step (K, D), and the labels among them (B,)."""
        classes = len(self.centres)
        if not self.training or self.sampled == classes:
            return self.centres, labels_B
        drawn_K, labels_B = sample_classes(labels_B, classes, self.sampled)
        return self.centres.index_select(0, drawn_K), labels_B

    def _quality(self, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
        """How good the images are, -1..1, (B, 1) or a scalar; 0 where a loss does not ask."""
        return embeddings_BD.new_zeros(())

    def _harder(self, cosines: Tensor, margin: float, quality: Tensor) -> Tensor:
        """The right class's cosine under a margin."""
        raise NotImplementedError

    def _balanced_scale(self, classes: int) -> float:
        """The scale at which the loss is steepest halfway, at θ = π/4.

        AdaCos (arXiv:1905.00292, section 3.3) wants the probability of the right class to change fastest at
        π/4. There it is 1/2: exp(s cos(π/4)) = B for the B = C - 1 other classes, whose cosines are near 0.
        With a margin the left side is exp(s f(π/4)) with the harder cosine f. At least 8: with a smaller
        scale a handful of people could never be told apart with certainty.
        """
        middle = float(self._harder(torch.tensor(math.cos(math.pi / 4)), self.margin, torch.zeros(())))
        return max(8.0, math.log(max(classes - 1, 1)) / max(middle, 0.25))


class CosFaceLoss(MarginLoss):
    """Large margin cosine loss: the right class's logit is s (cos θ - m).

    CosFace, arXiv:1801.09414, eq. 4. The paper's m = 0.35 and s = 64 are for millions of images.

    Args:
        head: The head that makes the embedding.
        info: Its `classes` are the people.
        margin: m, in cosine, 0 to 1.
        scale: s; null chooses it by the number of people and the margin (AdaCos, arXiv:1905.00292).
        warmup: Part of the training over which the margin grows from 0.
        sample: Part of the class centres that enter a step's softmax, above 0 to 1; those of the people in the
            batch always do (PartialFC, arXiv:2203.15565). Saves memory and time with tens of thousands of people.
    """

    max_margin = 1.0

    def __init__(
        self,
        head: EmbeddingHead,
        info: DataInfo,
        *,
        margin: float = 0.2,
        scale: float | None = None,
        warmup: float = 0.2,
        sample: float = 1.0,
    ) -> None:
        super().__init__(head, info, margin=margin, scale=scale, warmup=warmup, sample=sample)

    def _harder(self, cosines: Tensor, margin: float, quality: Tensor) -> Tensor:
        return cosines - margin


class ArcFaceLoss(MarginLoss):
    """Additive angular margin loss: the right class's logit is s cos(θ + m).

    ArcFace, arXiv:1801.07698, eq. 3. Beyond θ = π - m, cos(θ + m) would rise again and reward a worse angle;
    there the logit goes on falling as s (cos θ - m sin m), as in the authors' code. The paper's m = 0.5 and
    s = 64 are for millions of images.

    Args:
        head: The head that makes the embedding.
        info: Its `classes` are the people.
        margin: m, in radians, 0 to π / 2.
        scale: s; null chooses it by the number of people and the margin (AdaCos, arXiv:1905.00292).
        warmup: Part of the training over which the margin grows from 0.
        sample: Part of the class centres that enter a step's softmax, above 0 to 1; those of the people in the
            batch always do (PartialFC, arXiv:2203.15565). Saves memory and time with tens of thousands of people.
    """

    max_margin = math.pi / 2

    def __init__(
        self,
        head: EmbeddingHead,
        info: DataInfo,
        *,
        margin: float = 0.25,
        scale: float | None = None,
        warmup: float = 0.2,
        sample: float = 1.0,
    ) -> None:
        super().__init__(head, info, margin=margin, scale=scale, warmup=warmup, sample=sample)

    def _harder(self, cosines: Tensor, margin: float, quality: Tensor) -> Tensor:
        turned = cosines * math.cos(margin) - sines(cosines) * math.sin(margin)
        return torch.where(cosines > -math.cos(margin), turned, cosines - margin * math.sin(margin))


def sines(cosines: Tensor) -> Tensor:
    """sin θ, 0..1, of θ in 0..π; never 0, since the root's gradient is infinite there."""
    return (1 - cosines.square()).clamp(min=1e-7).sqrt()
