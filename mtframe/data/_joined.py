"""One data set's images with what another knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from mtframe.kinds import Dataset, LabelsImages

from ._sample import Sample


class WithTargetsOf:
    """A data set whose samples also have the targets that another one gives images of their id.

    Its own targets go before the other's of the same name. Everything else about it is its own.

    Args:
        dataset: Gives images and targets, and can label images.
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

    # Not by `__getattr__`: from Python 3.12 on a protocol is looked for in what a class declares.

    def ids(self) -> Sequence[str]:
        """`Sample.id` of each image, as the data set that gives the images says."""
        ids: Sequence[str] = self._dataset.ids()
        return ids

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """Its own target of the image of that id, without the other's."""
        target: dict[str, Tensor] = self._dataset.target_of(id, size)
        return target

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled there is no data set yet.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)
