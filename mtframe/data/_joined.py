"""One data set's images with what another knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from mtframe.errors import BadImageError, DataError
from mtframe.kinds import LabelsImages, Samples

from ._sample import Sample


class _Labelled(Samples, LabelsImages, Protocol):
    """A data set that can also label images that another one reads."""


class WithTargetsOf:
    """A data set whose samples also have the targets that another one gives images of their id.

    Its own targets take precedence over the other's of the same name.

    Args:
        dataset: Gives images and targets, and can label images.
        other: Labels the images.
    """

    def __init__(self, dataset: _Labelled, other: LabelsImages) -> None:
        self._dataset = dataset
        self._other = other

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """The sample; raises BadImageError if it, or what the other says of its image, cannot be read."""
        sample = self._dataset[index]
        try:
            known = self._other.target_of(sample.id, sample.size)
        except DataError as error:
            raise BadImageError(sample.id, str(error)) from error
        return replace(sample, target={**known, **sample.target})

    def ids(self) -> Sequence[str]:
        """`Sample.id` of each of its images, by position."""
        return self._dataset.ids()

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The targets of the image of that id, as its own sample has them."""
        return {**self._other.target_of(id, size), **self._dataset.target_of(id, size)}
