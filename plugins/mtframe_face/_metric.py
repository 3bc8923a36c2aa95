"""Face verification by the LFW protocol."""

# Shapes: P pairs, D numbers in an embedding.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError

from ._pairs import Pairs
from ._protocol import verification_scores


class FaceVerification:
    """Same person or not? The LFW protocol over cosine similarities of embeddings.

    Accuracy is the mean over folds, each decided with the threshold that is best on all the other folds.
    Beside it stand its standard error, the area under the ROC curve, the equal error rate and the true accept
    rate at false accept rates of 1e-1 to 1e-4 (n/a with fewer than 1 / rate pairs of different people).

    Huang et al., TR 07-49, section 4; Huang and Learned-Miller, UM-CS-2014-003 ("unrestricted" results).

    Args:
        dataset: The evaluated split; has `pairs` (Pairs) and may have `people`, the names in it.
        info: Of the training data; its `classes` are the people that the model learned from.

    Raises:
        DataError: The split has no pairs, or one of its people was trained on.
    """

    target: ClassVar[str] = "identity"
    primary = "accuracy"
    higher_is_better = True

    def __init__(self, dataset: Any, info: DataInfo | None = None) -> None:
        pairs = getattr(dataset, "pairs", None)
        if not isinstance(pairs, Pairs):
            raise DataError("face-verification compares pairs of images; this split has none. Use split val or test")
        learned = set(info.classes) if info else set()
        if shared := sorted(learned & set(getattr(dataset, "people", ()))):
            raise DataError(
                f"{len(shared)} of the people to be verified were trained on ({', '.join(shared[:5])}): the "
                "score would say nothing about strangers. Evaluate on a split of other people"
            )
        self.pairs = pairs
        self.reset()

    def reset(self) -> None:
        """Forgets every embedding."""
        self.embeddings: dict[int, np.ndarray] = {}

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds embeddings (D,); an image seen twice counts once."""
        for prediction, sample in zip(predictions, samples, strict=True):
            self.embeddings[sample.index] = prediction["embedding"].float().numpy()

    def merge(self, other: FaceVerification) -> None:
        """Takes over the embeddings of another instance."""
        self.embeddings.update(other.embeddings)

    def similarities(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosine of each pair, (P,) float64, NaN if an image has no embedding; whether both have, (P,)."""
        known = np.array(sorted(self.embeddings), np.int64)
        if not len(known):
            raise DataError("no image of the pairs was embedded; there is nothing to score")
        vectors = np.stack([self.embeddings[index] for index in known]).astype(np.float64)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        row = np.full(max(known.max(), self.pairs.first.max(), self.pairs.second.max()) + 1, -1)
        row[known] = np.arange(len(known))
        first, second = row[self.pairs.first], row[self.pairs.second]
        present = (first >= 0) & (second >= 0)
        scores = np.where(present, np.einsum("pd,pd->p", vectors[first], vectors[second]), np.nan)
        return scores, present

    def compute(self) -> dict[str, float]:
        """The scores, and `missing_pairs`: how many were left out because an image could not be read.

        Raises:
            DataError: No pair is complete, or an embedding is not finite.
        """
        scores, present = self.similarities()
        if not present.any():
            raise DataError(f"none of the {len(self.pairs)} pairs has both its images embedded; nothing to score")
        scores = scores[present]
        if not np.isfinite(scores).all():
            raise DataError(f"{(~np.isfinite(scores)).sum()} pairs have embeddings that are not finite numbers")
        values = verification_scores(scores, self.pairs.same[present], self.pairs.fold[present])
        return values | {"missing_pairs": int((~present).sum())}
