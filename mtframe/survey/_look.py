"""One split, image by image: labels condensed, files that cannot be read named."""

# Shapes: I images that could be read.

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtframe.data import load
from mtframe.errors import BadLabelError, DataError
from mtframe.kinds import (
    Dataset,
    KeepsFiles,
    LabelsImages,
    LabelsTakeLong,
    PlacesWhole,
    ReadsLabels,
    Surveys,
    Target,
    Transform,
)

# Images that a process looks at before it tells of them.
_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Look:
    """How closely data is looked at.

    Attributes:
        decode: Whether every image is decoded; else labels alone are read, where a data set can do that.
        workers: Processes that do it; 0 for none but this one.
        most: Images of a split that are looked at, the first ones; None for all.
        seen: Called with a number of images that have been looked at.
    """

    decode: bool = True
    workers: int = 0
    most: int | None = None
    seen: Callable[[int], None] = lambda number: None


@dataclass(slots=True)
class SplitLook:
    """What was seen of a split.

    Attributes:
        images: In the split.
        read: Whether labels were read at all.
        places: (I,) of those that could be read, by position.
        sizes: Their (height, width); (0, 0) where only pixels would tell.
        condensed: What their kind of target keeps of each label; empty if it keeps nothing.
        unreadable: Why others could not be read.
        wrong: What is wrong with the labels of others.
        missing: Ids of those that are not there, at which nobody looks.
    """

    images: int
    read: bool
    places: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    condensed: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def looked_at(self) -> int:
        """Images that were looked at, or would have been, were they there."""
        return len(self.places) + len(self.unreadable) + len(self.wrong) + len(self.missing)

    def add(self, part: SplitLook) -> None:
        """Adds what was seen of further images of the same split."""
        self.places += part.places
        self.sizes += part.sizes
        self.condensed += part.condensed
        self.unreadable += part.unreadable
        self.wrong += part.wrong
        self.missing += part.missing

    def scales(self, transform: Transform | None) -> np.ndarray:
        """(I,) pixels of the input for one of the original's; NaN where nobody knows."""
        if transform is None or not isinstance(transform, PlacesWhole):
            return np.full(len(self.sizes), np.nan)
        known = {size: transform.placement_of(size).scale for size in {*self.sizes} if min(size) > 0}
        return np.array([known.get(size, np.nan) for size in self.sizes], dtype=np.float64)


def look_at(dataset: Dataset, target: Target, look: Look) -> SplitLook:
    """Looks at every image of a split, or at every label.

    Raises:
        StarvedError: Memory is short, or a process is gone.
    """
    if not look.decode and not isinstance(dataset, ReadsLabels):
        return SplitLook(len(dataset), read=False)
    found = SplitLook(len(dataset), read=True)
    # Those that lie together: data of people has one after the other.
    places = np.arange(len(dataset))[: look.most]
    if not look.decode and isinstance(dataset, LabelsTakeLong) and len(places) > dataset.looked_at:
        places = np.unique(np.linspace(0, len(places) - 1, dataset.looked_at).round().astype(np.int64))
    parts = _Parts(dataset, target, places, decode=look.decode)
    for part in load(parts, range(len(parts)), look.workers, pin_memory=False):
        found.add(part)
        look.seen(part.images)
    return found


def files_of(dataset: Dataset) -> dict[str, Path]:
    """Where the images are, by their ids in order; nothing of data that does not keep each in a file of its own."""
    if not isinstance(dataset, LabelsImages) or not isinstance(dataset, KeepsFiles):
        return {}
    return {id: dataset.root / id for id in dataset.ids()}


class _Parts:
    """A split in parts, as a map-style data set, so that a loader's processes can look at them.

    Args:
        dataset: The split.
        target: Its kind of target.
        places: Those of the split that are looked at.
        decode: Whether images are decoded.
    """

    def __init__(self, dataset: Any, target: Target, places: np.ndarray, *, decode: bool) -> None:
        self._dataset, self._decode, self._places = dataset, decode, places
        self._target = target if isinstance(target, Surveys) else None
        self._missing = {
            place: id for place, (id, path) in enumerate(files_of(dataset).items()) if not os.path.exists(path)
        }

    def __len__(self) -> int:
        return -(-len(self._places) // _TOGETHER)

    def __getitem__(self, number: int) -> SplitLook:
        places = self._places[number * _TOGETHER : (number + 1) * _TOGETHER].tolist()
        part = SplitLook(len(places), read=True)
        for place in places:
            if place in self._missing:
                part.missing.append(self._missing[place])
                continue
            try:
                sample = self._dataset[place].without_image() if self._decode else self._dataset.annotated(place)
            except BadLabelError as error:
                part.wrong.append(str(error))
                continue
            except DataError as error:
                part.unreadable.append(str(error))
                continue
            part.places.append(place)
            part.sizes.append(sample.size)
            if self._target is not None:
                part.condensed.append(self._target.condensed(sample))
        return part
