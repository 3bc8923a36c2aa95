"""COCO's layout on disk: photographs, and one json a split with their boxes."""

# Shapes: I images, N boxes of one image.

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import ClassVar

import numpy as np
import torch

from mtframe.data import DataInfo, DecodeSize, Sample, read_image
from mtframe.download import download
from mtframe.errors import BadImageError, DataError, RecipeError

from ._annotations import read_annotations
from ._download import COCO_2017
from ._synthesis import synthesize_scenes


class Coco:
    """Images with boxes in COCO's layout.

    ```
    ROOT/annotations/instances_train2017.json    ROOT/train2017/000000000009.jpg ...
    ROOT/annotations/instances_val2017.json      ROOT/val2017/000000000139.jpg ...
    ```

    Any data in this format will do: name its files with `annotations` and `images`, where `{split}` stands
    for `train` or `val`. Category ids may have gaps; label `i` is the `i`-th category by id, and
    `category_ids[i]` its id. Boxes are clipped to their image. Boxes without area and boxes that stand twice
    are left out and counted in `notes`; anything else that is wrong with the json is an error.

    Args:
        split: `train` or `val`.
        root: Folder that holds everything.
        annotations: Path of the json, relative to the root.
        images: Folder of the images, relative to the root.
        keep_empty: Whether images without boxes are kept. In evaluation they are always kept: what is found
            on them is wrong.

    Attributes:
        info: Names of the categories.
        category_ids: Id in the json of each label.
        notes: What was left out, for people to read.

    Raises:
        RecipeError: There is no such folder or split.
        DataError: A file or folder in it is missing or not what the format promises.
    """

    target: ClassVar[str] = "boxes"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    synthesize = staticmethod(synthesize_scenes)

    @staticmethod
    def download(root: Path) -> None:
        """Fetches COCO 2017 (train, val and their annotations: 20 GB of zip files) into `root`."""
        download(Path(root), COCO_2017)

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        annotations: str = "annotations/instances_{split}2017.json",
        images: str = "{split}2017",
        keep_empty: bool = True,
    ) -> None:
        if split not in self.splits:
            raise RecipeError(f"coco: no split {split!r}; it has {', '.join(self.splits)}")
        self.split, self.root = split, Path(root)
        self.decode_size: DecodeSize | None = None
        # Not str.format: any other brace in a path is the path's own.
        file, self.images = (text.replace("{split}", split) for text in (annotations, images))
        self._check_layout(file)
        self.annotations = read_annotations(self.root / file)
        self._check_names(file)
        self.info = DataInfo("boxes", self.annotations.category_names)
        self.category_ids = self.annotations.category_ids
        self.notes = self.annotations.notes
        chosen = np.arange(len(self.annotations))
        if not keep_empty and split == "train":
            chosen = chosen[np.diff(self.annotations.first) > 0]
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Sample:
        """The image and its boxes, in pixels of the original.

        Target: `boxes` (N, 4) double XYXY, `labels` (N,) long, `crowd` (N,) bool, `area` (N,) float (of the
        segment, where the json says so), `annotation_id` (N,) long and `image_id` () long.

        Raises:
            BadImageError: The file cannot be read, or is not of the size that the json says.
        """
        sample = self.annotated(index)
        path = self.root / sample.id
        sample.image, size = read_image(path, self.decode_size)
        if size != sample.size:
            found, said = (f"{width}x{height}" for height, width in (size, sample.size))
            raise BadImageError(path, f"is {found}, but its annotations are for {said}")
        return sample

    def annotated(self, index: int) -> Sample:
        """The sample without reading its image."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"coco {self.split}: no sample {index}, there are {len(self)}")
        index %= len(self)
        data, image = self.annotations, int(self._chosen[index])
        own = slice(int(data.first[image]), int(data.first[image + 1]))
        target = {
            "boxes": torch.from_numpy(data.boxes[own].copy()),
            "labels": torch.from_numpy(data.labels[own].astype(np.int64)),
            "crowd": torch.from_numpy(data.crowd[own].copy()),
            "area": torch.from_numpy(data.area[own].copy()),
            "annotation_id": torch.from_numpy(data.annotation_ids[own].copy()),
            "image_id": torch.tensor(int(data.image_ids[image])),
        }
        height, width = (int(side) for side in data.sizes[image])
        name = str(data.files[image])
        return Sample(torch.empty(0, dtype=torch.uint8), target, (height, width), index, f"{self.images}/{name}")

    def _check_layout(self, file: str) -> None:
        hint = f"Fetch COCO with: mtframe data download coco {self.root}"
        if not self.root.is_dir():
            raise RecipeError(f"root: no folder '{self.root}'. {hint}")
        if not (self.root / file).is_file():
            raise DataError(f"coco: no file '{self.root / file}'. Name it with the option 'annotations'. {hint}")
        if not (self.root / self.images).is_dir():
            raise DataError(f"coco: no folder '{self.root / self.images}'. Name it with the option 'images'. {hint}")

    def _check_names(self, file: str) -> None:
        bad = [str(name) for name in self.annotations.files if not _is_plain(str(name))]
        if bad:
            raise DataError(
                f"{self.root / file}: {len(bad)} file_name entries lead out of '{self.images}', "
                f"e.g. {bad[0]!r}. They must be relative, without '..'."
            )


def _is_plain(name: str) -> bool:
    """Whether a file name stays in its folder, on any system."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if not path.name or path.anchor or ".." in path.parts or "\0" in name:
            return False
    return True
