"""What metrics of embeddings share: comparing what was collected, and refusing people whom the model learned."""

# Shapes: N images of the data set, M embedded ones, D numbers in an embedding.

from __future__ import annotations

from collections.abc import Collection, Mapping

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


def learned_elsewhere(dataset: object, learned: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Notes on people of an evaluated split whose names the model has learned elsewhere, by another task or run.

    No error: two data sets may give one name, such as a number, to different people.
    """
    people = set(dataset.people) if isinstance(dataset, NamesPeople) else set()
    notes = []
    for where, names in learned.items():
        if not names:
            notes.append(f"whether the weights of {where} have learned people of this split is not known")
        elif shared := sorted(people & set(names)):
            notes.append(
                f"{len(shared)} of the {len(people)} people have names that {where} has learned "
                f"({', '.join(shared[:5])}): if they are the same, the score says little about strangers"
            )
    return tuple(notes)


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
