"""The softmax loss: a linear classifier over people, without a margin."""

# Shapes: B images, D numbers in an embedding, K classes that enter a step.

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError

from ._centres import count_classes, count_sampled, cross_entropy, sample_classes
from .embedding import EmbeddingHead


class SoftmaxLoss(nn.Module):
    """Cross entropy of a linear classifier over people on top of the embedding.

    Args:
        head: The head that makes the embedding.
        info: Its `classes` are the people.
        label_smoothing: Share of the target spread evenly over the people that enter a step, 0 to below 1.
        sample: Part of the people that enter a step's softmax, above 0 to 1; those in the batch always do
            (PartialFC, arXiv:2203.15565). Saves memory and time with tens of thousands of people.
    """

    target: ClassVar[str] = "identity"

    def __init__(
        self, head: EmbeddingHead, info: DataInfo, *, label_smoothing: float = 0.0, sample: float = 1.0
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise RecipeError(f"label_smoothing: must be 0 or more and below 1, got {label_smoothing:g}")
        self.label_smoothing = label_smoothing
        self.classes = count_classes(info)
        self.sampled = count_sampled(self.classes, sample)
        self.classifier = nn.Linear(head.dim, self.classes)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`identity`: mean over the images whose label is a class; 0 if there is none."""
        embeddings_BD, labels_B = outputs["embedding"], targets["label"]
        weight_KD: Tensor = self.classifier.weight
        bias_K: Tensor = self.classifier.bias
        if self.training and self.sampled < self.classes:
            drawn_K, labels_B = sample_classes(labels_B, self.classes, self.sampled)
            weight_KD, bias_K = weight_KD.index_select(0, drawn_K), bias_K[drawn_K]
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            logits_BK = F.linear(embeddings_BD.float(), weight_KD, bias_K)
            return {"identity": cross_entropy(logits_BK, labels_B, self.label_smoothing)}
