"""Image files with one target each, kept as arrays."""

# Shapes: N images, C classes or numbers.

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtframe.data import ClassCounts, DataInfo, DecodeSize, Names, Sample, read_image
from mtframe.errors import RecipeError, pasted

SPLITS = ("train", "val", "test")


class LabelledImages:
    """Paths and targets of images, sorted by path. Picklable, and shared by a loader's worker processes.

    Args:
        root: Folder that the paths are relative to.
        target: Name of the target: `label`, `labels` or `value`.
        files: N paths with forward slashes, each once.
        targets: (N,) int64 for `label`, else (N, C) float32; -1 or NaN where unknown.
    """

    def __init__(self, root: Path, target: str, files: Sequence[str], targets: np.ndarray) -> None:
        names = Names(files)
        order = names.order()
        self.root, self.target = root, target
        self._names, self._targets = names.chosen(order), targets[order]

    def __len__(self) -> int:
        return len(self._names)

    def sample(self, index: int, decode_size: DecodeSize | None) -> Sample:
        """Reads an image, upright. Raises IndexError past the end, BadImageError for a file that cannot be read."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, no number {index}")
        file = self._names[index]
        image, size = read_image(self.root / file, decode_size, upright=True)
        return Sample(image, self._target(self._targets[index]), size, index, file)

    def counts(self, classes: int) -> ClassCounts | None:
        """How often each of so many classes occurs; None of numbers."""
        if self.target == "label":
            of_C = np.bincount(self._targets[self._targets >= 0], minlength=classes)
            return ClassCounts(tuple(of_C.tolist()), tuple((of_C.sum() - of_C).tolist()))
        if self.target == "labels":
            applies_C, not_C = (
                np.count_nonzero(found, axis=0) for found in (self._targets > 0.5, self._targets <= 0.5)
            )
            return ClassCounts(tuple(applies_C.tolist()), tuple(not_C.tolist()))
        return None

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels, which are not read; its size is not known."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, no number {index}")
        target = self._target(self._targets[index])
        return Sample(torch.empty(0, dtype=torch.uint8), target, (0, 0), index, self._names[index])

    def ids(self) -> list[str]:
        """The path of each image."""
        return self._names.tolist()

    def target_of(self, id: str) -> dict[str, Tensor]:
        """The target of the image with this path, without reading it; the unknown target if there is none."""
        place = self._names.place_of(id)
        if place is not None:
            return self._target(self._targets[place])
        return self._target(np.full_like(self._targets[0], -1 if self.target == "label" else np.nan))

    def _target(self, value: np.ndarray) -> dict[str, Tensor]:
        return {self.target: torch.from_numpy(np.array(value))}


class LabelledDataset:
    """What the data sets here do once they have found their images and labels.

    Args:
        labelled: The images of a split.
        info: What their labels mean.
        train: Whether that is the training's.

    Attributes:
        info: With counts of the classes, in training.
    """

    def __init__(self, labelled: LabelledImages, info: DataInfo, *, train: bool) -> None:
        self._labelled = labelled
        self.info = replace(info, counts=labelled.counts(len(info.classes))) if train else info
        self.decode_size: DecodeSize | None = None

    def __len__(self) -> int:
        return len(self._labelled)

    def __getitem__(self, index: int) -> Sample:
        """One image. Target: `label` () long, `labels` (C,) float 0 or 1, or `value` (K,) float.

        Raises:
            IndexError: There is no such image.
            BadImageError: The file cannot be read.
        """
        return self._labelled.sample(index, self.decode_size)

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels, which are not read; its size is not known."""
        return self._labelled.annotated(index)

    def ids(self) -> list[str]:
        """Path of each image below `root`."""
        return self._labelled.ids()

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The target of the image with this path in the root; -1 or NaN if it is not in this split."""
        return self._labelled.target_of(id)


def check_options(dataset: str, split: str, val_part: float, classes: Sequence[str] | None) -> None:
    """Raises RecipeError for an unknown split, a part out of its range, or a class that is named twice."""
    if split not in SPLITS:
        raise RecipeError(f"split: {dataset} has no {split!r}; it has {', '.join(SPLITS)}")
    if not 0 <= val_part < 1:
        raise RecipeError(f"val_part: must be 0 or more and below 1, got {val_part:g}")
    twice = sorted(name for name, count in Counter(classes or ()).items() if count > 1)
    if twice:
        raise RecipeError(f"classes: {twice[0]!r} stands twice")


def check_root(dataset: str, root: Path) -> None:
    """Raises RecipeError where there is no such folder."""
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'. Make one with: mtframe data synthesize {dataset} {pasted(root)}")
