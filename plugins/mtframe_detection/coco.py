"""COCO's layout on disk: photographs, and one json a split with their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor

from mtframe.data import DataInfo, DecodeSize, Sample
from mtframe.download import download
from mtframe.errors import DataError, RecipeError

from ._coco_json import read_coco
from ._download import COCO_2017
from ._reading import check_split
from .boxes import Boxes
from .synthesis import synthesize_scenes


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
        check_split("coco", split, self.splits)
        self.split, self.root = split, Path(root)
        self.decode_size: DecodeSize | None = None
        # Not str.format: any other brace in a path is the path's own.
        file, self.images = (text.replace("{split}", split) for text in (annotations, images))
        self._check_layout(file)
        everything, categories = read_coco(self.root / file, f"coco {split}", self.images)
        self.annotations = everything.of_split(split, keep_empty=keep_empty)
        self.info = DataInfo("boxes", tuple(categories.values()))
        self.category_ids = tuple(categories)
        self.notes = self.annotations.notes

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        """The image and its boxes; `area` is that of the segment, where the json says so.

        Raises:
            BadImageError: The file cannot be read, or is not of the size that the json says.
        """
        return self.annotations.read(index, self.root, self.decode_size)

    def ids(self) -> list[str]:
        """Path of each image below `root`."""
        return self.annotations.ids()

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The target of the image with this path below `root`; of one that is not in this split nothing is known.

        Raises:
            DataError: Its annotations are for another size.
        """
        found = self.annotations.target_of(id, size)
        return Boxes(self.info).unknown() if found is None else found

    def annotated(self, index: int) -> Sample:
        """The sample without reading its image."""
        return self.annotations.sample(index)

    def _check_layout(self, file: str) -> None:
        hint = f"Fetch COCO with: mtframe data download coco {self.root}"
        if not self.root.is_dir():
            raise RecipeError(f"root: no folder '{self.root}'. {hint}")
        if not (self.root / file).is_file():
            raise DataError(f"coco: no file '{self.root / file}'. Name it with the option 'annotations'. {hint}")
        if not (self.root / self.images).is_dir():
            raise DataError(f"coco: no folder '{self.root / self.images}'. Name it with the option 'images'. {hint}")
