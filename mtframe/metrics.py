"""What metrics need: predictions collected image by image, thresholds, and classes that are those of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import ConfigDict, FiniteFloat, with_config

from mtframe.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from mtframe.data import DataInfo, Sample
    from mtframe.kinds import Dataset

Kept = TypeVar("Kept")


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True, slots=True)
class SizedThreshold:
    """A threshold for comparisons with so many at once: the more there are, the more similar the best of them is."""

    size: int
    value: FiniteFloat


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True, slots=True)
class GalleryThresholds:
    """From which similarity on the most similar of a gallery is a match.

    Attributes:
        chosen: Key of those that are used where nobody names others.
        values: By what they were chosen for, as `fpir=1e-2`, the thresholds of galleries of some sizes, rising.
        data: What they were chosen on, in words.
    """

    chosen: str
    values: dict[str, list[SizedThreshold]]
    data: str

    def value(self, size: int, name: str | None = None) -> float | None:
        """That of the next larger gallery of which there is one, or of the largest; None if the data told none.

        Args:
            size: Number of identities in the gallery.
            name: What it was chosen for; as `chosen` says if None.
        """
        known = self.values.get(self.chosen if name is None else name, [])
        return next((one.value for one in known if one.size >= size), known[-1].value if known else None)


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which score on a prediction counts: chosen on a split, kept with the weights, used in prediction.

    Attributes:
        chosen: Key of the threshold that is used where nobody names another.
        values: Thresholds by what they were chosen for, as `accuracy` or `far=1e-2`; a score of a threshold or more
            counts. What the split could not tell is left out, and may be what `chosen` says.
        data: What they were chosen on, in words: `500 pairs of one person and 500 of two`.
        rates: By the same names, where it is known, the part of what should not count that did on these data.
        gallery: Those for searching a gallery; None where no metric has chosen any.
    """

    chosen: str
    values: dict[str, FiniteFloat]
    data: str
    rates: dict[str, FiniteFloat] = field(default_factory=dict)
    gallery: GalleryThresholds | None = None

    @property
    def value(self) -> float | None:
        """The chosen threshold; None if the split could not tell it."""
        return self.values.get(self.chosen)


class PerImage(Generic[Kept]):
    """What a metric keeps of each image; one that comes twice (processes may pad their shares) counts once.

    Args:
        keep: Makes it of an image's prediction and its sample; None where there is nothing to score.
    """

    def __init__(self, keep: Callable[[Mapping[str, Tensor], Sample], Kept | None]) -> None:
        self._keep = keep
        self._by_index: dict[int, Kept] = {}

    def reset(self) -> None:
        """Forgets everything."""
        self._by_index.clear()

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds images."""
        for prediction, sample in zip(predictions, samples, strict=True):
            kept = self._keep(prediction, sample)
            if kept is not None:
                self._by_index[sample.index] = kept

    def merge(self, other: PerImage[Kept]) -> None:
        """Takes over another instance's images."""
        self._by_index.update(other._by_index)

    def in_order(self) -> dict[int, Kept]:
        """What was kept, by the images' places in the data set: so no score depends on the order of updates."""
        return {index: self._by_index[index] for index in sorted(self._by_index)}


def check_classes(metric: str, info: DataInfo, dataset: Dataset | None, advice: str = "") -> None:
    """Refuses a split whose classes are not those that are predicted, in the same order.

    Args:
        metric: Name of the metric, for the message.
        info: Of the training data; its `classes` are what is predicted.
        dataset: The evaluated split; None for no check.
        advice: What else the message says.

    Raises:
        DataError: It has others, or has them in another order.
    """
    if dataset is None or dataset.info.classes == info.classes:
        return
    here, there = dataset.info.classes, info.classes
    place = next((n for n, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), None)
    first = "" if place is None else f"; number {place} is {here[place]!r} here and {there[place]!r} there"
    raise DataError(
        f"{metric}: this split has {len(here)} classes, the model was trained on {len(there)}{first}. Both need the "
        f"same ones in the same order{advice}"
    )
