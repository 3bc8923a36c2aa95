"""What metrics of embeddings share: collecting them, and refusing people whom the model learned."""

# Shapes: N images of the data set, M embedded ones, D numbers in an embedding.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError


class Embeddings:
    """Embeddings by the position of their image in the data set."""

    def __init__(self) -> None:
        self._by_index: dict[int, np.ndarray] = {}

    def add(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Takes `embedding` (D,) of each; an image seen twice counts once."""
        for prediction, sample in zip(predictions, samples, strict=True):
            self._by_index[sample.index] = prediction["embedding"].float().numpy()

    def merge(self, other: Embeddings) -> None:
        """Takes over another process's."""
        self._by_index.update(other._by_index)

    def unit_vectors(self, images: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (M, D) float64, and the row of each of the `images` among them (N,), -1 if it has none.

        Raises:
            DataError: There is none at all, or one is not finite.
        """
        known = np.array(sorted(self._by_index), np.int64)
        if not len(known):
            raise DataError("no image was embedded; there is nothing to score")
        vectors = np.stack([self._by_index[index] for index in known]).astype(np.float64)
        if strange := int((~np.isfinite(vectors).all(1)).sum()):
            raise DataError(f"{strange} of {len(vectors)} embeddings are not finite numbers")
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        row = np.full(max(images, int(known.max()) + 1), -1)
        row[known] = np.arange(len(known))
        return vectors, row[:images]


def refuse_learned(dataset: Any, info: DataInfo | None, what: str) -> None:
    """Raises DataError if one of the `people` of an evaluated split was trained on; `what` is done to them."""
    learned = set(info.classes) if info else set()
    if shared := sorted(learned & set(getattr(dataset, "people", ()))):
        raise DataError(
            f"{len(shared)} of the people to be {what} were trained on ({', '.join(shared[:5])}): the "
            "score would say nothing about strangers. Evaluate on a split of other people"
        )
