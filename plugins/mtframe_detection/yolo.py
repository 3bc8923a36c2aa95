"""YOLO's layout on disk: folders of images, and beside them folders of one text file an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from mtframe.data import Sample, read_header, read_image
from mtframe.errors import DataError
from mtframe.kinds import Finding
from mtframe.omissions import BAD_LABELS, check_part

from ._files import misplaced_labels
from ._reading import check_split
from ._yolo_files import describe, recognised
from ._yolo_text import label_file, read_labels
from .annotations import AnnotatedImages
from .boxes import Boxes


class Yolo(AnnotatedImages):
    """Images with boxes in the text format of YOLO, laid out as Ultralytics and Roboflow do.

    ```
    ROOT/data.yaml                       names: [cat, dog]; train: images/train; val: images/val
    ROOT/images/train/a.jpg ...          ROOT/labels/train/a.txt ...   one line a box: class cx cy width height
    ROOT/images/val/b.jpg ...            ROOT/labels/val/b.txt ...     in parts of the image's width and height
    ```

    A split of the yaml is a folder, a `.txt` file that lists images, or several of these; it may have another of its
    names, as `valid`. `names` is a list or a mapping of numbers; where only `nc` is there, classes are `class_0`, ...
    Without a yaml, splits are the folders `ROOT/images/SPLIT` or `ROOT/SPLIT/images`; where images lie right in
    `ROOT/images`, a part of them validates (`val_part`), chosen by a digest of their paths. Names of classes then come
    from `classes` or from `ROOT/classes.txt`; without either they are `class_0`, ... up to the highest number in the
    labels of all splits. An image's
    labels are at its own path with the last folder `images` replaced by `labels`, or beside it where there is none
    of that name. An image without labels, or with an empty file, has nothing on it.

    A line with three or more points (class x1 y1 x2 y2 ...: outlines, rotated boxes) stands for the box around it.
    Boxes that reach out are clipped; boxes without area and boxes that stand twice are left out and counted in
    `notes`. So is an image with anything else that is wrong in its file, as long as these are few; more are an error.
    Images are turned upright as their EXIF orientation says, since that is how they are seen when labelled and what
    labels are measured on.

    No name leads out of the root: the yaml's own `path` is followed inside of it only. Symbolic links are followed.

    Args:
        split: `train`, `val` or `test`.
        root: Folder that holds everything.
        data: The yaml, relative to the root; null for `data.yaml` or `data.yml` where there is one.
        classes: Names of the classes in the order of their numbers, where no yaml says them.
        val_part: Part of the images that validates where neither a yaml nor folders of splits divide them.
        keep_empty: Whether images without boxes are kept. In evaluation they are always kept: what is found
            on them is wrong.
        bad_labels: Part of the images, and of the lines of a list, that may be left out, since something is wrong.
        orientation: Whether labels are for pictures as they are seen, or as they are `stored` in spite of their EXIF
            orientation.

    Attributes:
        info: Names of the classes.
        notes: What was left out, for people to read.
        omitted: How much was left out, by reason.

    Raises:
        RecipeError: There is no such folder or split.
        DataError: A file in it is missing or not what the format promises.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    findings: ClassVar[tuple[str, ...]] = (*AnnotatedImages.findings, "label-without-image", "labels-elsewhere")

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        data: str | None = None,
        classes: tuple[str, ...] = (),
        val_part: float = 0.2,
        keep_empty: bool = True,
        bad_labels: float = BAD_LABELS,
        orientation: Literal["upright", "stored"] = "upright",
    ) -> None:
        check_split("yolo", split, self.splits)
        check_part(val_part=val_part, bad_labels=bad_labels)
        root = Path(root)
        found = describe(root, split, data, classes, bad_labels, val_part)
        annotations = read_labels(root, split, found.images, len(found.classes), bad_labels).omitting(found.omitted)
        super().__init__(root, split, annotations, found.classes, keep_empty=keep_empty)
        self.notes = (*found.notes, *self.notes)
        self._upright = orientation == "upright"
        self._sizes = np.zeros((len(self), 2), np.int32)

    def __getitem__(self, index: int) -> Sample:
        """The image and its boxes. Raises BadImageError if the file cannot be read."""
        index = self.annotations.place(index)
        image, size = read_image(self._path(index), self.decode_size, upright=self._upright)
        self._sizes[index] = size
        sample = self.annotations.sample(index, size)
        sample.image = image
        return sample

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels; the image's header is read once to know its size."""
        index = self.annotations.place(index)
        return self.annotations.sample(index, self._size(index))

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The target of the image with this path below `root`; of one that is not in this split nothing is known.

        Raises:
            DataError: Who reads the image has it turned otherwise than its labels are.
        """
        index = self.annotations.place_of(id)
        if index is None:
            return Boxes(self.info).unknown()
        if (own := self._size(index)) != size:
            read, labelled = (f"{width}x{height}" for height, width in (size, own))
            raise DataError(
                f"{self.annotations.split}: {id} is {read} where it is read, and {labelled} as it is labelled; see "
                "the option 'orientation'"
            )
        return self.annotations.sample(index, size).target

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """The options for YOLO's yaml, or for a folder with one or with images and labels; see `Recognises`."""
        return recognised(Path(root))

    def _size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image as it is read, from its header."""
        if not self._sizes[index].any():
            header = read_header(self._path(index))
            self._sizes[index] = header.upright if self._upright else header.size
        height, width = self._sizes[index].tolist()
        return height, width

    def inspect(self) -> list[Finding]:
        """Also labels that lie where no image finds them."""
        return [*super().inspect(), *misplaced_labels(self.root, self.ids(), label_file)]

    def _path(self, index: int) -> Path:
        return self.root / self.annotations.files[index]
