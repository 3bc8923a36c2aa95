"""One data set's images with what another knows of them."""

from __future__ import annotations

from dataclasses import replace

from mtframe.kinds import LabelsImages, Samples

from ._sample import Sample


class WithTargetsOf:
    """A data set whose samples also have the targets that another one gives images of their id.

    Its own targets take precedence over the other's of the same name.

    Args:
        dataset: Gives images and targets, and can label images.
        other: Labels the images.
    """

    def __init__(self, dataset: Samples, other: LabelsImages) -> None:
        self._dataset = dataset
        self._other = other

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        return replace(sample, target={**self._other.target_of(sample.id, sample.size), **sample.target})
