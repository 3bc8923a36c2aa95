"""The triplet loss: nearer to every picture of oneself than to any of somebody else."""

# Shapes: B images, D numbers in an embedding.

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError

from ._centres import NOBODY, count_classes
from .embedding import EmbeddingHead

LOG = logging.getLogger("mtframe")

# Batches by which it is judged whether there are triplets: by chance one may have none.
_JUDGED = 20


class TripletLoss(nn.Module):
    """Triplet loss over Euclidean distances of unit embeddings: no class centres, no weights.

    `batch-hard` takes for every image its farthest picture of the same person and its nearest of another
    (arXiv:1703.07737, eq. 5). `semi-hard` takes every pair of one person's pictures, with the nearest other that is
    farther than the pair (FaceNet, arXiv:1503.03832, section 3.2), or the farthest other where none is. Distances
    are not squared, which arXiv:1703.07737 (section 3.2) found less prone to collapse.

    A batch needs several pictures of a person: give the data set `per_identity`, e.g. 4. Without a triplet the loss
    is 0, from which nothing is learned: a training that has seen none in its first 20 batches is ended, and one in
    which most pictures are alone is warned.

    Args:
        head: The head that makes the embedding.
        info: Its `classes` are the people; there must be two.
        margin: By how much nearer, in 0..2, the range of distances; null for the soft margin, ln(1 + exp(d)).
        mining: Which triplets of a batch count, `batch-hard` or `semi-hard`.

    Raises:
        RecipeError: `margin` is out of its range; or in training, batches hold no two pictures of a person.
    """

    target: ClassVar[str] = "identity"

    def __init__(
        self,
        head: EmbeddingHead,
        info: DataInfo,
        *,
        margin: float | None = 0.3,
        mining: Literal["batch-hard", "semi-hard"] = "batch-hard",
    ) -> None:
        super().__init__()
        if margin is not None and not 0 <= margin <= 2:
            raise RecipeError(f"margin: must be 0 to 2, or null for the soft margin; got {margin:g}")
        count_classes(info)
        self.margin, self.mining = margin, mining
        self._company = _Company()

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`triplet`: mean over the triplets of images whose label is a class; 0 if there is none."""
        embeddings_BD, labels_B = outputs["embedding"], targets["label"]
        # fp32: two distances are subtracted.
        with torch.autocast(embeddings_BD.device.type, enabled=False):
            unit_BD = F.normalize(embeddings_BD.float())
            # The floor keeps the root's gradient finite where two embeddings are equal.
            distances_BB = (2 - 2 * unit_BD @ unit_BD.T).clamp(min=1e-6).sqrt()
            mine = _batch_hard if self.mining == "batch-hard" else _semi_hard
            same_BB, other_BB = _relations(labels_B)
            if self.training:
                self._company.see(labels_B, same_BB)
            violations = mine(distances_BB, same_BB, other_BB)
            losses = F.softplus(violations) if self.margin is None else (violations + self.margin).clamp(min=0)
            # Of no triplet: 0, of which the gradient is 0.
            return {"triplet": losses.sum() / max(1, len(losses)) + 0 * unit_BD.sum()}


class _Company:
    """Whether the batches of a training hold several pictures of a person, judged once, by the first of them."""

    def __init__(self) -> None:
        self._batches, self._known, self._accompanied = 0, 0, 0

    def see(self, labels_B: Tensor, same_BB: Tensor) -> None:
        """Takes a batch into account. Raises RecipeError after the last of them if no two showed one person."""
        if self._batches >= _JUDGED:
            return
        self._batches += 1
        self._known += int((labels_B != NOBODY).sum())
        self._accompanied += int(same_BB.any(1).sum())
        if self._batches < _JUDGED or not self._known:
            return
        advice = "Give the data set per_identity, e.g. per_identity: 4 with a batch_size of a multiple of 4"
        if not self._accompanied:
            raise RecipeError(
                f"triplet: none of the first {_JUDGED} batches ({self._known} faces) shows a person twice, so there is "
                f"nothing to learn from. {advice}"
            )
        if 2 * self._accompanied < self._known:
            LOG.warning(
                "triplet: %d of the first %d faces are the only one of their person in the batch, and are not learned "
                "from. %s", self._known - self._accompanied, self._known, advice,
            )  # fmt: skip


def _relations(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """(B, B) bool: two pictures of one person, and of two people; of nobody's neither."""
    known_BB = (labels_B != NOBODY)[:, None] & (labels_B != NOBODY)
    same_BB = known_BB & (labels_B[:, None] == labels_B)
    return same_BB & ~torch.eye(len(labels_B), dtype=torch.bool, device=labels_B.device), known_BB & ~same_BB


def _batch_hard(distances_BB: Tensor, same_BB: Tensor, other_BB: Tensor) -> Tensor:
    """How much farther the farthest of the same is than the nearest other, for each image that has both."""
    farthest_B = distances_BB.where(same_BB, -torch.inf).amax(1)
    nearest_B = distances_BB.where(other_BB, torch.inf).amin(1)
    return (farthest_B - nearest_B)[same_BB.any(1) & other_BB.any(1)]


def _semi_hard(distances_BB: Tensor, same_BB: Tensor, other_BB: Tensor) -> Tensor:
    """How much farther each of the same is than the nearest other beyond it, for each pair that has another."""
    # By a search in sorted rows: comparing all triplets would take B³ numbers.
    sorted_BB = distances_BB.where(other_BB, torch.inf).sort(1).values
    place_BB = torch.searchsorted(sorted_BB.detach(), distances_BB.detach().contiguous(), right=True)
    others_B1 = other_BB.sum(1, keepdim=True)
    nearest_BB = sorted_BB.gather(1, place_BB.minimum(others_B1 - 1).clamp(min=0))
    return (distances_BB - nearest_BB)[same_BB & (others_B1 > 0)]
