"""AdaFace: a margin that depends on how good an image is."""

# Shapes: B images, D numbers in an embedding.

from __future__ import annotations

import torch
from torch import Tensor

from mtframe.data import DataInfo
from mtframe.errors import RecipeError

from ._centres import NOBODY
from .embedding import EmbeddingHead
from .margin_losses import MarginLoss, sines

# How far a step's statistics move the averages, as in the paper (α = 0.99, section 4.1).
MOMENTUM = 0.01


class AdaFaceLoss(MarginLoss):
    """Quality adaptive margin loss: hard images count where they can be recognised, and not where they cannot.

    The length of an embedding tells how good its image is. Normalised by the running mean and standard deviation
    of lengths, times h, and cut to -1..1, it is the quality q, and the right class's logit is
    s (cos(θ - m q) - (m q + m)): ArcFace's for q = -1, CosFace's for q = 0.

    AdaFace, arXiv:2204.00964, eqs. 12 to 15. θ - m q is kept within 0..π, as in the authors' code; beyond π the logit
    goes on falling as ArcFace's does here. The averages begin with what the first steps show, not with a guess.
    The paper's m = 0.4 and s = 64 are for millions of images.

    Args:
        head: The head that makes the embedding.
        info: Its `classes` are the people.
        margin: m, 0 to 1.
        concentration: h, above 0: the larger, the more images have a quality of -1 or 1.
        scale: s; null chooses it by the number of people and the margin (AdaCos, arXiv:1905.00292).
        warmup: Part of the training over which the margin grows from 0.
        sample: Part of the class centres that enter a step's softmax, above 0 to 1; those of the people in the
            batch always do (PartialFC, arXiv:2203.15565). Saves memory and time with tens of thousands of people.
    """

    max_margin = 1.0
    length_mean: Tensor
    length_std: Tensor
    steps: Tensor

    def __init__(
        self,
        head: EmbeddingHead,
        info: DataInfo,
        *,
        margin: float = 0.2,
        concentration: float = 0.333,
        scale: float | None = None,
        warmup: float = 0.2,
        sample: float = 1.0,
    ) -> None:
        super().__init__(head, info, margin=margin, scale=scale, warmup=warmup, sample=sample)
        if concentration <= 0:
            raise RecipeError(f"concentration: must be above 0, got {concentration:g}")
        self.concentration = concentration
        self.register_buffer("length_mean", torch.zeros(()))
        self.register_buffer("length_std", torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def _quality(self, embeddings_BD: Tensor, labels_B: Tensor) -> Tensor:
        lengths_B1 = embeddings_BD.norm(dim=1, keepdim=True).clamp(0.001, 100)
        if self.training:
            self._average(lengths_B1[labels_B != NOBODY])
        normal_B1 = (lengths_B1 - self.length_mean) / (self.length_std + 1e-3)
        return (normal_B1 * self.concentration).clamp(-1, 1)

    def _average(self, lengths: Tensor) -> None:
        # The standard deviation of one length is none.
        if len(lengths) < 2:
            return
        self.steps += 1
        weight = (1 / self.steps).clamp(min=MOMENTUM)
        self.length_mean.lerp_(lengths.mean(), weight)
        self.length_std.lerp_(lengths.std(), weight)

    def _harder(self, cosines: Tensor, margin: float, quality: Tensor) -> Tensor:
        angle = -margin * quality
        turned = cosines * angle.cos() - sines(cosines) * angle.sin()
        # cos θ > cos a where θ < a: turning back by a would go beyond 0.
        turned = torch.where((angle < 0) & (cosines > angle.cos()), 1.0, turned)
        beyond = (angle > 0) & (cosines < -angle.cos())
        turned = torch.where(beyond, cosines - angle * angle.sin(), turned)
        return turned - (margin * quality + margin)
