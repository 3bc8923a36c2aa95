"""Losses that tell people apart: softmax, CosFace and ArcFace."""

# Shapes: B images, C classes (people), D numbers in an embedding.

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError

from ._head import EmbeddingHead

# Label of somebody who is not a class, e.g. in evaluation: takes no part in the loss.
NOBODY = -1


class SoftmaxLoss(nn.Module):
    """Cross entropy of a linear classifier over people on top of the embedding.

    Args:
        head: The head that makes the embedding.
        info: Its `classes` are the people.
        label_smoothing: Share of the target spread evenly over all people, 0 to below 1.
    """

    target: ClassVar[str] = "identity"

    def __init__(self, head: EmbeddingHead, info: DataInfo, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise RecipeError(f"label_smoothing: must be 0 or more and below 1, got {label_smoothing:g}")
        self.label_smoothing = label_smoothing
        self.classifier = nn.Linear(head.dim, _count_classes(info))

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`identity`: mean over the images whose label is a class; 0 if there is none."""
        embeddings_BD = outputs["embedding"]
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            logits_BC = self.classifier(embeddings_BD.float())
            return {"identity": _cross_entropy(logits_BC, targets["label"], self.label_smoothing)}


class _MarginLoss(nn.Module):
    """Cross entropy of cosines to class centres, the right class's made harder by a margin.

    A network from scratch that must hold the full margin at once tends to collapse, above all with few
    pictures a person; so the margin grows linearly from 0 over the first `warmup` of the training.
    """

    target: ClassVar[str] = "identity"
    max_margin: ClassVar[float]

    def __init__(
        self, head: EmbeddingHead, info: DataInfo, *, margin: float, scale: float | None, warmup: float
    ) -> None:
        super().__init__()
        if not 0 <= margin <= self.max_margin:
            raise RecipeError(f"margin: must be 0 to {self.max_margin:g}, got {margin:g}")
        if scale is not None and scale <= 0:
            raise RecipeError(f"scale: must be above 0, or null to choose it by the number of people; got {scale:g}")
        if not 0 <= warmup <= 1:
            raise RecipeError(f"warmup: must be 0 to 1, a part of the training; got {warmup:g}")
        classes = _count_classes(info)
        self.margin, self.warmup, self.progress = margin, warmup, 1.0
        self.scale = scale if scale is not None else self._balanced_scale(classes)
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
            cosines_BC = F.linear(F.normalize(embeddings_BD.float()), F.normalize(self.centres.float()))
            right_B1 = labels_B.clamp(min=0)[:, None]
            harder_B1 = self._harder(cosines_BC.gather(1, right_B1), self.current_margin)
            logits_BC = self.scale * cosines_BC.scatter(1, right_B1, harder_B1)
            return {"identity": _cross_entropy(logits_BC, labels_B)}

    def _harder(self, cosines: Tensor, margin: float) -> Tensor:
        """The right class's cosine under a margin."""
        raise NotImplementedError

    def _balanced_scale(self, classes: int) -> float:
        """The scale at which the loss is steepest halfway, at θ = π/4.

        AdaCos (arXiv:1905.00292, section 3.3) wants the probability of the right class to change fastest at
        π/4. There it is 1/2: exp(s cos(π/4)) = B for the B = C - 1 other classes, whose cosines are near 0.
        With a margin the left side is exp(s f(π/4)) with the harder cosine f. At least 8: with a smaller
        scale a handful of people could never be told apart with certainty.
        """
        middle = float(self._harder(torch.tensor(math.cos(math.pi / 4)), self.margin))
        return max(8.0, math.log(max(classes - 1, 1)) / max(middle, 0.25))


class CosFaceLoss(_MarginLoss):
    """Large margin cosine loss: the right class's logit is s (cos θ - m).

    CosFace, arXiv:1801.09414, eq. 4. The paper's m = 0.35 and s = 64 are for millions of images.

    Args:
        head: The head that makes the embedding.
        info: Its `classes` are the people.
        margin: m, in cosine, 0 to 1.
        scale: s; null chooses it by the number of people and the margin (AdaCos, arXiv:1905.00292).
        warmup: Part of the training over which the margin grows from 0.
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
    ) -> None:
        super().__init__(head, info, margin=margin, scale=scale, warmup=warmup)

    def _harder(self, cosines: Tensor, margin: float) -> Tensor:
        return cosines - margin


class ArcFaceLoss(_MarginLoss):
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
    ) -> None:
        super().__init__(head, info, margin=margin, scale=scale, warmup=warmup)

    def _harder(self, cosines: Tensor, margin: float) -> Tensor:
        # The floor keeps the root's gradient finite at cos θ = ±1.
        sines = (1 - cosines.square()).clamp(min=1e-7).sqrt()
        turned = cosines * math.cos(margin) - sines * math.sin(margin)
        return torch.where(cosines > -math.cos(margin), turned, cosines - margin * math.sin(margin))


def _cross_entropy(logits_BC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    total = F.cross_entropy(logits_BC, labels_B, ignore_index=NOBODY, reduction="sum", label_smoothing=smoothing)
    return total / (labels_B != NOBODY).sum().clamp(min=1)


def _count_classes(info: DataInfo) -> int:
    if len(info.classes) < 2:
        raise DataError(f"the training data has {len(info.classes)} people; to tell people apart takes at least 2")
    return len(info.classes)
