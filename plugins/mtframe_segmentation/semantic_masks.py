"""Images and masks of class numbers, in two trees of folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtframe.data import DataInfo, DecodeSize, Names, Sample, read_header, read_image, read_map
from mtframe.errors import BadLabelError, RecipeError, pasted
from mtframe.folders import held_out
from mtframe.omissions import BAD_LABELS, check_part

from ._classes import ClassTable
from ._pairs import IMAGES, MASK_END, MASKS, SPLITS, Layout
from .masks import Masks
from .synthesis import synthesize_scenes

CLASSES = "classes.txt"


class SemanticMasks:
    """Images, and a picture of class numbers for each, which has its name in another folder.

    ```
    ROOT/images/train/town/0001.jpg    ROOT/masks/train/town/0001.png    ROOT/classes.txt
    ROOT/images/val/town/0002.jpg      ROOT/masks/val/town/0002.png
    ```

    Masks are PNG, TIFF or BMP files of one number a pixel: grey of 8 or 16 bits, or a palette, whose colours do not
    matter. They are read when they are asked for. Images without a mask are left out and counted in `notes`. Where
    there are no masks for `val`, a part of the training images validates, chosen by a digest of their paths: always the
    same ones, and none is trained on.

    In the options, `{split}` stands for `train`, `val` or `test` or another name of these that is there, such as
    `validation`, or for what `split_names` has for it.

    Args:
        split: `train`, `val` or `test`.
        root: The folder that holds everything.
        images: Folder of the images, relative to the root; they may lie in folders below it.
        masks: Folder of the masks, relative to the root.
        image_end: What the images' names end with, as `_leftImg8bit.png`; null for any image suffix.
        mask_end: What the masks' names have in its place.
        lists: A file for each split with an image a line, relative to the root, as `lists/{split}.txt`; null for all
            images in the folder.
        classes: Names of the numbers 0, 1, ...: a list, or a file relative to the root with a name a line (`.txt`) or
            numbers with names (`.yaml`). Numbers of one name are one class.
        unknown: Numbers of pixels whose class is not known: not learned from, not scored.
        split_names: What `{split}` stands for where files call a split otherwise, as `{train: 2011_09}`.
        val_part: Part of the training images that validates where there are no masks for `val`.
        bad_labels: Part of the lines of a list that may be left out, since they are wrong.

    Attributes:
        info: Names of the classes.
        notes: What was left out, in sentences.
        omitted: How much was left out, by reason.

    Raises:
        RecipeError: An option names nothing there, or there is no such split.
        DataError: A file is not what it should be, or no image has a mask.
    """

    target: ClassVar[str] = "mask"
    splits: ClassVar[tuple[str, ...]] = SPLITS
    synthesize = staticmethod(synthesize_scenes)
    # Those of 2,048 x 1,024 pixels take a few seconds.
    looked_at: ClassVar[int] = 200

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        images: str = IMAGES,
        masks: str = MASKS,
        image_end: str | None = None,
        mask_end: str = MASK_END,
        lists: str | None = None,
        classes: str | tuple[str, ...] = CLASSES,
        unknown: tuple[int, ...] = (255,),
        split_names: dict[str, str] | None = None,
        val_part: float = 0.2,
        bad_labels: float = BAD_LABELS,
    ) -> None:
        _check_options(split, split_names or {}, val_part)
        check_part(bad_labels=bad_labels)
        self.root, self.split = Path(root), split
        self.decode_size: DecodeSize | None = None
        if not self.root.is_dir():
            make = f"mtframe data synthesize semantic-masks {pasted(root)}"
            raise RecipeError(f"root: no folder '{root}'. Make one with: {make}")
        self._layout = Layout(self.root, images, masks, image_end, mask_end, lists, split_names or {}, bad_labels)
        self._classes = ClassTable.read(self.root, classes, unknown)
        self.info = DataInfo(self.target, self._classes.names)
        if split == "test" and not self._layout.has(split):
            raise RecipeError(f"split: '{root}' has no masks for 'test'")
        holds_out = split != "test" and not self._layout.has("val")
        # Whose files these are.
        self._files = "train" if holds_out else split
        found, self.notes, self.omitted = self._layout.pairs(self._files)
        if holds_out:
            if split == "val":
                # Told by the training split, which this one is cut from.
                self.notes, self.omitted = (), Counter()
            chosen = held_out(found, val_part)
            found = [image for image, held in zip(found, chosen, strict=True) if held == (split == "val")]
        if not found:
            raise RecipeError(f"split: '{root}' has no image for {split!r} with val_part={val_part:g}")
        ids = Names(found)
        self._ids = ids.chosen(ids.order())

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """`{}` for folders `images` and `masks` of a split, and a file of classes; see `Recognises`."""
        layout = Layout.usual(Path(root))
        return {} if layout.has("train") and (Path(root) / CLASSES).is_file() else None

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        """The image and its `mask`, (H, W) uint8.

        Raises:
            IndexError: There is no such image.
            BadImageError: A file cannot be read.
            BadLabelError: The mask is not of its image's size or has numbers that mean nothing.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, no number {index}")
        id = self._ids[index]
        # As it is stored, not turned upright: that is how masks are drawn.
        image, size = read_image(self.root / id, self.decode_size)
        return Sample(image, {"mask": self._mask(id, size)}, size, index, id)

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels, which are not decoded; its mask is, and the image's header.

        Raises:
            BadImageError: A file cannot be read.
            BadLabelError: The mask is not of its image's size or has numbers that mean nothing.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} images, no number {index}")
        id = self._ids[index]
        size = read_header(self.root / id).size
        return Sample(torch.empty(0, dtype=torch.uint8), {"mask": self._mask(id, size)}, size, index, id)

    def ids(self) -> list[str]:
        """Path of each image relative to the root."""
        return self._ids.tolist()

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """`mask` of the image with this path relative to the root; of one that is not in this split nothing is known.

        Raises:
            BadImageError: The mask cannot be read.
            BadLabelError: It is of another size or has numbers that mean nothing.
        """
        if self._ids.place_of(id) is None:
            return Masks(self.info).unknown()
        return {"mask": self._mask(id, size)}

    def _mask(self, id: str, size: tuple[int, int]) -> Tensor:
        path = self._layout.mask_of(id, self._files)
        numbers = read_map(path)
        if numbers.shape != size:
            found, wanted = (f"{width}x{height}" for height, width in (numbers.shape, size))
            raise BadLabelError(path, f"is {found}, but its image {id} is {wanted}")
        try:
            return self._classes.classes_of(numbers)
        except ValueError as error:
            raise BadLabelError(path, str(error)) from None


def _check_options(split: str, split_names: dict[str, Any], val_part: float) -> None:
    if split not in SPLITS:
        raise RecipeError(f"split: semantic-masks has no {split!r}; it has {', '.join(SPLITS)}")
    if unknown := [name for name in split_names if name not in SPLITS]:
        raise RecipeError(f"split_names: expected names of {', '.join(SPLITS)}, got one of {unknown[0]!r}")
    if not 0 <= val_part < 1:
        raise RecipeError(f"val_part: must be 0 or more and below 1, got {val_part:g}")
