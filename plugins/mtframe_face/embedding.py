"""From the coarsest feature map to one vector a face."""

# Shapes: B images, D numbers in an embedding.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec


class EmbeddingHead(nn.Module):
    """The last map, averaged over a grid of cells, to an embedding: dropout, linear, BatchNorm.

    Aligned faces put the eyes in one place: `grid` above 1 keeps where things are, which the ArcFace paper's
    output block (BN, dropout, linear, BN; arXiv:1801.07698, section 3.1) does with every cell of the map. It
    costs `channels * grid**2 * dim` weights.

    Args:
        features: Maps of the backbone; the last one is used.
        info: Of the training data.
        dim: Length of the embedding.
        grid: The map is averaged to grid × grid cells before it is flattened; 1 averages over all of it.
        dropout: Probability of dropping a cell's channel in training.

    Raises:
        RecipeError: An option is out of its range, or it is to learn from a single image.
    """

    target: ClassVar[str] = "identity"

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        info: DataInfo | None = None,
        *,
        dim: int = 256,
        grid: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("grid", grid)):
            if value < 1:
                raise RecipeError(f"{name}: must be 1 or more, got {value}")
        if not 0 <= dropout < 1:
            raise RecipeError(f"dropout: must be 0 or more and below 1, got {dropout:g}")
        self.dim = dim
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features[-1].channels * grid**2, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """`embedding`: (B, D) float32, of any length."""
        if self.training and len(maps[-1]) < 2:
            raise RecipeError(
                "embedding head: its BatchNorm needs 2 images or more in a step to learn from, got 1; "
                "set the task's batch_size to 2 or more"
            )
        # fp32 from here on: two embeddings are compared by differences that bf16 would round away.
        with torch.autocast(maps[-1].device.type, enabled=False):
            pooled = self.pool(maps[-1].float()).flatten(1)
            return {"embedding": self.norm(self.linear(self.dropout(pooled)))}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """`embedding`: (D,) float32 of unit length for each image; their dot product is the similarity."""
        return [{"embedding": row} for row in F.normalize(outputs["embedding"].float())]
