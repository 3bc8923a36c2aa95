"""One data set's images with what another knows of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mtframe.kinds import Dataset, LabelsImages

from ._sample import Sample


class WithTargetsOf:
    """A data set whose samples also have the targets that another one gives images of their id.

    Its own targets go before the other's of the same name. Everything else about it is its own.

    Args:
        dataset: Gives images and targets.
        other: Labels the images.
    """

    def __init__(self, dataset: Dataset, other: LabelsImages) -> None:
        self._dataset: Any = dataset
        self._other = other

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self._dataset[index]
        return replace(sample, target={**self._other.target_of(sample.id, sample.size), **sample.target})

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled there is no data set yet.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)
