"""The article's face recognition: fully connected layers that tell people apart."""

# Shapes: B images, C people, D numbers in an embedding.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec


class FaceClassifier(nn.Module):
    """Two fully connected layers: the last map to an embedding, the embedding to a score for each person.

    The classifier only knows the people of its training. Strangers are compared by the layer before it.

    Args:
        features: Maps of the backbone; the last one is used.
        info: Its `classes` are the people.
        dim: Length of the embedding.
        grid: The map is averaged to grid × grid cells, so that images of any size fit the first layer.

    Raises:
        RecipeError: An option is out of its range, or it is to learn from a single image.
    """

    target: ClassVar[str] = "identity"

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo, *, dim: int = 128, grid: int = 4) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("grid", grid)):
            if value < 1:
                raise RecipeError(f"{name}: must be 1 or more, got {value}")
        self.dim = dim
        self.pool = nn.AdaptiveAvgPool2d(grid)
        # The article leaves both sizes undefined. The first is that of the map, which the backbone says; the second is
        # the number of people, which the data says.
        # BatchNorm, of this task's images alone: at first all faces look nearly the same to the network. Without it the
        # loss stays at the logarithm of the number of people, that of a guess.
        self.hidden = nn.Sequential(nn.Linear(features[-1].channels * grid**2, dim, bias=False), nn.BatchNorm1d(dim))
        self.classifier = nn.Linear(dim, len(info.classes))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """`embedding` (B, D), of any length, and `logits` (B, C)."""
        if self.training and len(maps[-1]) < 2:
            raise RecipeError("tutorial-face: BatchNorm needs 2 images or more in a step, got 1; raise batch_size")
        embedding = self.hidden(self.pool(maps[-1]).flatten(1))
        return {"embedding": embedding, "logits": self.classifier(F.relu(embedding))}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """`embedding`: (D,) float32 of unit length for each image; their dot product is the similarity."""
        return [{"embedding": row} for row in F.normalize(outputs["embedding"].float())]


class FaceLoss(nn.Module):
    """Cross-entropy over the people of the training."""

    target: ClassVar[str] = "identity"

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`identity`: mean over the images whose label is a person; 0 if there is none."""
        logits_BC, labels_B = outputs["logits"].float(), targets["label"]
        known = (labels_B >= 0).sum().clamp(min=1)
        return {"identity": F.cross_entropy(logits_BC, labels_B, ignore_index=-1, reduction="sum") / known}
