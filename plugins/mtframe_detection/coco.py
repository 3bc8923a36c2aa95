"""COCO's layout on disk: photographs, and one json a split with their boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mtframe.download import download
from mtframe.errors import DataError, RecipeError, pasted
from mtframe.folders import filled, spelled_twice
from mtframe.omissions import BAD_LABELS, check_part

from ._coco_json import read_coco
from ._download import COCO_2017
from ._reading import check_split
from ._turning import Orientation
from .annotations import AnnotatedImages
from .synthesis import synthesize_scenes

# Where they usually are: COCO's own, those of tools, Roboflow's.
_FILES = (
    "annotations/instances_{split}2017.json",
    "annotations/instances_{split}.json",
    "annotations/{split}.json",
    "{split}/_annotations.coco.json",
    "{split}.json",
)
_FOLDERS = ("{split}2017", "{split}", "images/{split}2017", "images/{split}", "images")


class Coco(AnnotatedImages):
    """Images with boxes in COCO's layout, or in Roboflow's.

    ```
    ROOT/annotations/instances_train2017.json    ROOT/train2017/000000000009.jpg ...
    ROOT/annotations/instances_val2017.json      ROOT/val2017/000000000139.jpg ...

    ROOT/train/_annotations.coco.json            ROOT/train/a.jpg ...
    ROOT/valid/_annotations.coco.json            ROOT/valid/b.jpg ...
    ```

    Any data in this format will do: name its files with `annotations` and `images`, where `{split}` stands
    for `train`, `val` or `test`, or another name of these that is there, as `valid`. Category ids may have gaps; label
    `i` is the `i`-th category by id, and `category_ids[i]` its id. A category that is above all others and has no box,
    as Roboflow writes it, is no class. Boxes are clipped to their image. Boxes without area and boxes that stand twice
    are left out and counted in `notes`. So is an image with a wrong annotation, as long as these are few; anything else
    that is wrong is an error. An object's `area` is that of its segment, where the json says so.

    Args:
        split: `train`, `val` or `test`.
        root: Folder that holds everything.
        annotations: Path of the json, relative to the root; null for the first that is there of
            `annotations/instances_{split}2017.json`, `annotations/instances_{split}.json`, `annotations/{split}.json`,
            `{split}/_annotations.coco.json` and `{split}.json`.
        images: Folder of the images, relative to the root; null for the first that is there of `{split}2017`,
            `{split}`, `images/{split}2017`, `images/{split}` and `images`.
        keep_empty: Whether images without boxes are kept. In evaluation they are always kept: what is found
            on them is wrong.
        bad_labels: Part of the images that may be left out, since an annotation of theirs is wrong.
        orientation: Which way up boxes are meant of pictures that are stored turned (EXIF): as their size says (`fit`),
            which does not tell of squares, as they are `stored`, or `upright`, as they are seen.

    Attributes:
        info: Names of the categories.
        category_ids: Id in the json of each label.
        notes: What was left out, for people to read.
        omitted: How much was left out, by reason.

    Raises:
        RecipeError: There is no such folder or split.
        DataError: A file or folder in it is missing or not what the format promises.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
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
        annotations: str | None = None,
        images: str | None = None,
        keep_empty: bool = True,
        bad_labels: float = BAD_LABELS,
        orientation: Orientation = "fit",
    ) -> None:
        check_split("coco", split, self.splits)
        check_part(bad_labels=bad_labels)
        root = Path(root)
        file, said = _first(root, split, annotations, _FILES, Path.is_file)
        self.images, _ = _first(root, split, images, _FOLDERS, Path.is_dir)
        _check_layout(root, split, file, self.images)
        learned = root / _first(root, "train", annotations, _FILES, Path.is_file)[0]
        found, categories = read_coco(
            root / file,
            f"coco {split}",
            self.images,
            bad_labels,
            learned if split != "train" and learned.is_file() else None,
        )
        super().__init__(
            root,
            split,
            found.noting(*said),
            tuple(categories.values()),
            keep_empty=keep_empty,
            orientation=orientation,
        )
        self.category_ids = tuple(categories)

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """`{}` for a folder with a json and images of a split where they usually are; see `Recognises`."""
        for split in Coco.splits:
            file, _ = _first(Path(root), split, None, _FILES, Path.is_file)
            images, _ = _first(Path(root), split, None, _FOLDERS, Path.is_dir)
            if (Path(root) / file).is_file() and (Path(root) / images).is_dir():
                return {}
        return None


def _first(
    root: Path, split: str, named: str | None, usual: Sequence[str], is_there: Callable[[Path], bool]
) -> tuple[str, tuple[str, ...]]:
    """Where a split's file or folder is, or would be beside those of other splits; and what to say of another one."""

    def exists(path: str) -> bool:
        return is_there(root / path)

    templates = usual if named is None else (named,)
    paths = [filled(template, split, exists) for template in templates]
    for template, path in zip(templates, paths, strict=True):
        if exists(path):
            return path, spelled_twice(template, split, path, exists)
    beside = (
        path
        for template, path in zip(templates, paths, strict=True)
        if any(exists(filled(template, other, exists)) for other in Coco.splits)
    )
    return next(beside, paths[0]), ()


def _check_layout(root: Path, split: str, file: str, images: str) -> None:
    hint = f"Fetch COCO with: mtframe data download coco {pasted(root)}"
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'. {hint}")
    if split == "test" and not (root / file).is_file():
        raise RecipeError(f"coco: no split 'test': no file '{root / file}'")
    if not (root / file).is_file():
        raise DataError(f"coco: no file '{root / file}'. Name it with the option 'annotations'. {hint}")
    if not (root / images).is_dir():
        raise DataError(f"coco: no folder '{root / images}'. Name it with the option 'images'. {hint}")
