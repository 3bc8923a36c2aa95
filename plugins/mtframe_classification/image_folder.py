"""Images in one folder for each class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from mtframe.data import IMAGE_SUFFIXES, DataInfo
from mtframe.errors import DataError, RecipeError
from mtframe.registry import did_you_mean

from ._images import SPLITS, LabelledDataset, LabelledImages, check_options, check_root, held_out
from .synthesis import synthesize_folders


class ImageFolder(LabelledDataset):
    """Images in one folder for each class, whose name is the class's.

    ```
    ROOT/train/CLASS/*.jpg    ROOT/val/CLASS/*.jpg    ROOT/test/CLASS/*.jpg
    ```

    Without a folder `val`, a part of each class's training images validates, chosen by a digest of their paths:
    always the same ones, and none is trained on. `ROOT/CLASS/*.jpg` without any such folders is divided the
    same way. A class's images may lie in folders below its own. Names that begin with a dot are passed over.

    Args:
        split: `train`, `val` or `test`.
        root: The folder that holds everything.
        val_part: Part of each class that validates where there is no folder `val`.
        classes: The classes and their order; folders of other names are left out. By default all folders of
            the training images, sorted.

    Attributes:
        info: Names of the classes.
        notes: What was left out, in sentences.

    Raises:
        RecipeError: `root`, `split` or `classes` names nothing there.
        DataError: A class has no training images, or a split has a class that is not trained on.
    """

    target: ClassVar[str] = "label"
    splits: ClassVar[tuple[str, ...]] = SPLITS
    synthesize = staticmethod(synthesize_folders)

    def __init__(
        self, split: str, *, root: Path, val_part: float = 0.2, classes: tuple[str, ...] | None = None
    ) -> None:
        check_options("image-folder", split, val_part, classes)
        self.root, self.split = Path(root), split
        self.notes: tuple[str, ...] = ()
        check_root("image-folder", self.root)
        divided = any(_holds_folders(self.root / name) for name in SPLITS)
        train = self.root / "train" if divided else self.root
        holds_out = split != "test" and not (divided and (self.root / "val").is_dir())
        folder = train if holds_out else self.root / split
        if not folder.is_dir() or (split == "test" and not divided):
            there = [name for name in SPLITS if (self.root / name).is_dir()]
            has = f"it has {', '.join(there)}" if divided else "only CLASS/*.jpg, which is divided into train and val"
            raise RecipeError(f"split: '{root}' has no {split!r}; {has}")
        self.info = DataInfo("label", self._classes(train, classes))
        files, labels = self._images(folder, chosen=classes is not None)
        if holds_out:
            kept = held_out(files, labels, val_part) == (split == "val")
            files, labels = [file for file, keep in zip(files, kept, strict=True) if keep], labels[kept]
        if not files:
            held = f" with val_part={val_part:g}" if holds_out else ""
            raise RecipeError(f"split: '{folder}' has no image for {split!r}{held}")
        super().__init__(LabelledImages(self.root, "label", files, labels), self.info, train=split == "train")

    def _classes(self, train: Path, classes: tuple[str, ...] | None) -> tuple[str, ...]:
        if not train.is_dir():
            if classes is None:
                raise RecipeError(f"classes: there is no folder '{train}' that would tell them; name them here")
            return classes
        there = _folders(train)
        if unknown := [name for name in classes or () if name not in there]:
            hint = did_you_mean(unknown[0], there)
            raise RecipeError(f"classes: '{train}' has no folder {unknown[0]!r}{hint}")
        named = classes or tuple(there)
        if len(named) < 2:
            raise DataError(f"{train}: expected a folder for each of two or more classes, found {len(named)}")
        return named

    def _images(self, folder: Path, *, chosen: bool) -> tuple[list[str], np.ndarray]:
        """Paths relative to the root, and labels; `chosen` if the recipe names the classes."""
        known = self.info.classes
        trained = set(known)
        others = [name for name in _folders(folder) if name not in trained]
        if others and not chosen:
            raise DataError(
                f"{folder}: {len(others)} classes that are not trained on: {', '.join(others[:5])}. "
                f"Remove their folders, or name the classes in the option 'classes'{did_you_mean(others[0], known)}"
            )
        if others:
            self.notes = (f"{folder}: {len(others)} folders are no class of 'classes'; left out",)
        files: list[str] = []
        counts = []
        for name in known:
            found = _images_below(folder / name, self.root)
            files += found
            counts.append(len(found))
        if self.split == "train" and (empty := [name for name, count in zip(known, counts, strict=True) if not count]):
            raise DataError(
                f"{folder}: {len(empty)} classes have no image to learn from: {', '.join(empty[:5])}. "
                f"Images end in {', '.join(IMAGE_SUFFIXES)}"
            )
        return files, np.repeat(np.arange(len(known)), counts)


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _holds_folders(folder: Path) -> bool:
    # A folder `train` full of images is the class of trains, not a split.
    return folder.is_dir() and bool(_folders(folder))


def _images_below(folder: Path, root: Path) -> list[str]:
    """Paths of a class's images, relative to the root with forward slashes; none if there is no such folder."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")]
        found += [(Path(place) / name).relative_to(root).as_posix() for name in images]
    return found
