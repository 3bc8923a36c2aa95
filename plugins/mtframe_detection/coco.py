"""COCO's layout on disk: photographs, and one json a split with their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mtframe.download import download
from mtframe.errors import DataError, RecipeError, pasted

from ._coco_json import read_coco
from ._download import COCO_2017
from ._reading import check_split
from .annotations import AnnotatedImages
from .synthesis import synthesize_scenes


class Coco(AnnotatedImages):
    """Images with boxes in COCO's layout.

    ```
    ROOT/annotations/instances_train2017.json    ROOT/train2017/000000000009.jpg ...
    ROOT/annotations/instances_val2017.json      ROOT/val2017/000000000139.jpg ...
    ```

    Any data in this format will do: name its files with `annotations` and `images`, where `{split}` stands
    for `train` or `val`. Category ids may have gaps; label `i` is the `i`-th category by id, and
    `category_ids[i]` its id. Boxes are clipped to their image. Boxes without area and boxes that stand twice
    are left out and counted in `notes`; anything else that is wrong with the json is an error. An object's `area` is
    that of its segment, where the json says so.

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
        # Not str.format: any other brace in a path is the path's own.
        file, self.images = (text.replace("{split}", split) for text in (annotations, images))
        root = Path(root)
        _check_layout(root, file, self.images)
        found, categories = read_coco(root / file, f"coco {split}", self.images)
        super().__init__(root, split, found, tuple(categories.values()), keep_empty=keep_empty)
        self.category_ids = tuple(categories)


def _check_layout(root: Path, file: str, images: str) -> None:
    hint = f"Fetch COCO with: mtframe data download coco {pasted(root)}"
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'. {hint}")
    if not (root / file).is_file():
        raise DataError(f"coco: no file '{root / file}'. Name it with the option 'annotations'. {hint}")
    if not (root / images).is_dir():
        raise DataError(f"coco: no folder '{root / images}'. Name it with the option 'images'. {hint}")
