"""YOLO's layout on disk: folders of images, and beside them folders of one text file an image."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from mtframe.data import Sample, read_image, read_size
from mtframe.kinds import Finding

from ._files import misplaced_labels
from ._reading import check_split
from ._yolo_files import describe
from ._yolo_text import label_file, read_labels
from .annotations import AnnotatedImages


class Yolo(AnnotatedImages):
    """Images with boxes in the text format of YOLO, laid out as Ultralytics and Roboflow do.

    ```
    ROOT/data.yaml                       names: [cat, dog]; train: images/train; val: images/val
    ROOT/images/train/a.jpg ...          ROOT/labels/train/a.txt ...   one line a box: class cx cy width height
    ROOT/images/val/b.jpg ...            ROOT/labels/val/b.txt ...     in parts of the image's width and height
    ```

    A split of the yaml is a folder, a `.txt` file that lists images, or several of these. Without a yaml, splits
    are the folders in `ROOT/images`, and names of classes come from `classes` or from `ROOT/classes.txt`. An image's
    labels are at its own path with the last folder `images` replaced by `labels`, or beside it where there is none
    of that name. An image without labels, or with an empty file, has nothing on it.

    A line with three or more points (class x1 y1 x2 y2 ...: outlines, rotated boxes) stands for the box around it.
    Boxes that reach out are clipped; boxes without area and boxes that stand twice are left out and counted in
    `notes`; anything else that is wrong is an error. Images are turned upright as their EXIF orientation says,
    since that is how they are seen when labelled and what labels are measured on.

    No name leads out of the root: the yaml's own `path` is followed inside of it only. Symbolic links are followed.

    Args:
        split: `train`, `val` or `test`.
        root: Folder that holds everything.
        data: The yaml, relative to the root; null for `data.yaml` or `data.yml` where there is one.
        classes: Names of the classes in the order of their numbers, where no yaml says them.
        keep_empty: Whether images without boxes are kept. In evaluation they are always kept: what is found
            on them is wrong.

    Attributes:
        info: Names of the classes.
        notes: What was left out, for people to read.

    Raises:
        RecipeError: There is no such folder or split.
        DataError: A file in it is missing or not what the format promises.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        data: str | None = None,
        classes: tuple[str, ...] = (),
        keep_empty: bool = True,
    ) -> None:
        check_split("yolo", split, self.splits)
        root = Path(root)
        found = describe(root, split, data, classes)
        annotations = read_labels(root, split, found.images, len(found.classes))
        super().__init__(root, split, annotations, found.classes, keep_empty=keep_empty)
        self.notes = (*found.notes, *self.notes)
        self._sizes = np.zeros((len(self), 2), np.int32)

    def __getitem__(self, index: int) -> Sample:
        """The image and its boxes. Raises BadImageError if the file cannot be read."""
        index = self.annotations.place(index)
        image, size = read_image(self._path(index), self.decode_size, upright=True)
        self._sizes[index] = size
        sample = self.annotations.sample(index, size)
        sample.image = image
        return sample

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels; of the image only the header is read, once, to know its size."""
        index = self.annotations.place(index)
        if not self._sizes[index].any():
            self._sizes[index] = read_size(self._path(index), upright=True)
        height, width = self._sizes[index].tolist()
        return self.annotations.sample(index, (height, width))

    def inspect(self) -> list[Finding]:
        """Also labels that lie where no image finds them."""
        return [*super().inspect(), *misplaced_labels(self.root, self.ids(), label_file)]

    def _path(self, index: int) -> Path:
        return self.root / self.annotations.files[index]
