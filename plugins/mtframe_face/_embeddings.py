"""What metrics of embeddings share: comparing what was collected, and refusing people whom the model learned."""

# Shapes: N images of the data set, M embedded ones, D numbers in an embedding.

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError
from mtframe.metrics import PerImage

from .identities import NamesPeople


def embedding(prediction: Mapping[str, Tensor], sample: Sample) -> np.ndarray:
    """(D,): what is kept of each image."""
    return prediction["embedding"].float().numpy()


def unit_vectors(embeddings: PerImage[np.ndarray], images: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (M, D) float64, and the row of each of the `images` among them (N,), -1 if it has none.

    Raises:
        DataError: There is none at all, or one is not finite.
    """
    by_index = embeddings.in_order()
    if not by_index:
        raise DataError("no image was embedded; there is nothing to score")
    vectors = np.stack(list(by_index.values())).astype(np.float64)
    if strange := int((~np.isfinite(vectors).all(1)).sum()):
        raise DataError(f"{strange} of {len(vectors)} embeddings are not finite numbers")
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    known = np.array(list(by_index), np.int64)
    row = np.full(max(images, int(known.max()) + 1), -1)
    row[known] = np.arange(len(known))
    return vectors, row[:images]


def refuse_learned(dataset: object, info: DataInfo | None, action: str) -> None:
    """Raises DataError if one of the people of an evaluated split was trained on.

    Args:
        dataset: The split.
        info: Of the training data.
        action: What is done to people, for the message: `verified`.
    """
    learned = set(info.classes) if info else set()
    if shared := sorted(learned & set(dataset.people if isinstance(dataset, NamesPeople) else ())):
        raise DataError(
            f"{len(shared)} of the people to be {action} were trained on ({', '.join(shared[:5])}): the "
            "score would say nothing about strangers. Evaluate on a split of other people"
        )
