"""Images in one folder for each class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError
from mtframe.folders import IMAGE_SUFFIXES, folders_in, held_out, holds_classes, images_below, not_used, splits_among
from mtframe.registry import did_you_mean

from ._images import SPLITS, LabelledDataset, LabelledImages, check_options, check_root
from .synthesis import synthesize_folders


class ImageFolder(LabelledDataset):
    """Images in one folder for each class, whose name is the class's.

    ```
    ROOT/train/CLASS/*.jpg    ROOT/val/CLASS/*.jpg    ROOT/test/CLASS/*.jpg
    ```

    A split may have another of its names, as `valid` or `validation`. Without a folder `val`, a part of each class's
    training images validates, chosen by a digest of their paths: always the same ones, and none is trained on.
    `ROOT/CLASS/*.jpg` without any such folders is divided the same way. A class's images may lie in folders below its
    own, and links are followed. Names that begin with a dot, and what systems leave beside files, are left out.

    Args:
        split: `train`, `val` or `test`.
        root: The folder that holds everything.
        val_part: Part of each class that validates where there is no folder `val`.
        classes: The classes and their order; folders of other names are left out. By default all folders of
            the training images, sorted.

    Attributes:
        info: Names of the classes.
        notes: What was left out, in sentences.
        omitted: How much was left out, by reason.

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
        self.omitted: Counter[str] = Counter()
        check_root("image-folder", self.root)
        splits, others = _splits(self.root)
        train = self.root / splits.get("train", "train") if splits else self.root
        holds_out = split != "test" and "val" not in splits
        folder = train if holds_out else self.root / splits.get(split, split)
        if not folder.is_dir() or (split == "test" and not splits):
            has = f"it has {', '.join(splits)}" if splits else "only CLASS/*.jpg, which is divided into train and val"
            raise RecipeError(f"split: '{root}' has no {split!r}; {has}")
        if splits:
            self.notes += not_used(self.root, others)
        self.info = DataInfo("label", self._classes(train, classes))
        files, labels = self._images(folder, chosen=classes is not None)
        if holds_out:
            if split == "val":
                # Told by the training split, which this one is cut from.
                self.omitted.clear()
            kept = np.array(held_out(files, val_part, labels.tolist()), bool) == (split == "val")
            files, labels = [file for file, keep in zip(files, kept, strict=True) if keep], labels[kept]
        if not files:
            held = f" with val_part={val_part:g}" if holds_out else ""
            raise RecipeError(f"split: '{folder}' has no image for {split!r}{held}")
        super().__init__(LabelledImages(self.root, "label", files, labels), self.info, train=split == "train")

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """`{}` for folders of images of two or more classes, in the root or in splits; see `Recognises`."""
        splits, _ = _splits(Path(root))
        folder = Path(root) / splits.get("train", next(iter(splits.values()), "")) if splits else Path(root)
        return {} if holds_classes(folder) else None

    def _classes(self, train: Path, classes: tuple[str, ...] | None) -> tuple[str, ...]:
        if not train.is_dir():
            if classes is None:
                raise RecipeError(f"classes: there is no folder '{train}' that would tell them; name them here")
            return classes
        there = folders_in(train)
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
        others = [name for name in folders_in(folder) if name not in trained]
        if others and not chosen:
            raise DataError(
                f"{folder}: {len(others)} classes that are not trained on: {', '.join(others[:5])}. "
                f"Remove their folders, or name the classes in the option 'classes'{did_you_mean(others[0], known)}"
            )
        if others:
            self.notes += (f"{folder}: {len(others)} folders are no class of 'classes'; left out",)
            self.omitted["folders that are no class of 'classes'"] = len(others)
        files: list[str] = []
        counts = []
        for name in known:
            found = images_below(folder / name)
            files += [(folder / name / file).relative_to(self.root).as_posix() for file in found.files]
            counts.append(len(found.files))
            self.omitted += found.omitted
        if self.split == "train" and (empty := [name for name, count in zip(known, counts, strict=True) if not count]):
            raise DataError(
                f"{folder}: {len(empty)} classes have no image to learn from: {', '.join(empty[:5])}. "
                f"Images end in {', '.join(IMAGE_SUFFIXES)}"
            )
        return files, np.repeat(np.arange(len(known)), counts)


def _splits(root: Path) -> tuple[dict[str, str], list[str]]:
    """The folders of splits by split, and the others; none where the root holds the classes."""
    splits, others = splits_among(folders_in(root))
    # A folder `train` full of images is the class of trains, not a split.
    held = {split: name for split, name in splits.items() if folders_in(root / name)}
    return (splits, others) if held else ({}, [])
