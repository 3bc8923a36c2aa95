"""Pascal VOC's layout on disk: photographs, one xml an image with its boxes, and lists of the splits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from mtframe.errors import DataError, RecipeError
from mtframe.paths import stays_inside

from ._reading import check_split, read_text, refuse
from ._voc_xml import Scene, read_scene
from .annotations import AnnotatedImages, Annotations, collect

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Voc(AnnotatedImages):
    """Images with boxes in Pascal VOC's layout.

    ```
    ROOT/Annotations/2008_000008.xml         ROOT/ImageSets/Main/train.txt   one name a line
    ROOT/JPEGImages/2008_000008.jpg          ROOT/ImageSets/Main/val.txt
    ```

    These may also be in `ROOT/VOC2007`, `ROOT/VOC2012`, ... or in the same under `ROOT/VOCdevkit`, as the archives
    unpack; a split is then what all of them have of it. VOC's corners count from 1 and include the last pixel;
    here they count from 0 and do not, so 1 is taken off the upper left ones. Objects marked `difficult` are neither
    learned nor punished, as crowd regions of COCO.

    Boxes are clipped to their image. Boxes without area and boxes that stand twice are left out and counted in
    `notes`; anything else that is wrong is an error.

    Args:
        split: `train`, `val` or `test`.
        root: Folder that holds everything.
        classes: `voc` for VOC's 20, `found` for all names in the xml files in alphabetical order, or the names.
        train: List that is trained on, e.g. `trainval`.
        val: List that is validated on.
        test: List that is tested on.
        years: Which of several folders `VOC2007`, `VOC2012`, ... are taken; none for all.
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
        classes: Literal["voc", "found"] | tuple[str, ...] = "voc",
        train: str = "train",
        val: str = "val",
        test: str = "test",
        years: tuple[int, ...] = (),
        keep_empty: bool = True,
    ) -> None:
        if not classes or (len(set(classes)) < len(classes) and not isinstance(classes, str)):
            raise RecipeError(f"classes: expected 'voc', 'found' or names that differ, got {list(classes)}")
        lists = {"train": train, "val": val, "test": test}
        check_split("voc", split, self.splits)
        if not stays_inside(lists[split]):
            raise RecipeError(f"{split}: expected the name of a list in ImageSets/Main, got {lists[split]!r}")
        root = Path(root)
        folders = _folders(root, years)
        names = _listed(folders, lists[split])
        known = _names_in(folders) if classes == "found" else CLASSES if classes == "voc" else tuple(classes)
        super().__init__(root, split, _read(root, split, names, known), known, keep_empty=keep_empty)


def _folders(root: Path, years: tuple[int, ...]) -> list[Path]:
    """The folders that have `Annotations` and `ImageSets`."""
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'")
    if (root / "Annotations").is_dir():
        if years:
            raise RecipeError(f"years: '{root}' is not divided into years; leave the option out")
        return [root]
    found = sorted(path for top in (root, root / "VOCdevkit") for path in top.glob("VOC[0-9]*")
                   if (path / "Annotations").is_dir())  # fmt: skip
    chosen = [path for path in found if not years or path.name in {f"VOC{year}" for year in years}]
    if not chosen or (years and len(chosen) < len(years)):
        there = ", ".join(path.name for path in found) or "neither Annotations nor VOC2007, VOC2012, ..."
        wanted = "years: not all are there" if years else "root: not in VOC's layout"
        raise RecipeError(f"{wanted}; '{root}' has {there}")
    return chosen


def _listed(folders: list[Path], name: str) -> list[tuple[Path, str]]:
    """Folder and name of each image on a list."""
    files = [(folder, folder / "ImageSets" / "Main" / f"{name}.txt") for folder in folders]
    there = [(folder, file) for folder, file in files if file.is_file()]
    if not there:
        raise RecipeError(f"voc: no list {name!r}: no file '{files[0][1]}'")
    names = []
    for folder, file in there:
        # Lists of one class have 1, 0 or -1 behind the name.
        listed = dict.fromkeys(line.split()[0] for line in read_text(file).split("\n") if line.strip())
        refuse([repr(image) for image in listed if not stays_inside(image)], f"{file}: names lead out of '{folder}'")
        names += [(folder, image) for image in listed]
    if not names:
        raise DataError(f"{there[0][1]}: no images are listed")
    return names


def _names_in(folders: list[Path]) -> tuple[str, ...]:
    """Every class in any xml file, also of other splits: they need the same ones."""
    problems: list[str] = []
    names: set[str] = set()
    for folder in folders:
        for file in (folder / "Annotations").glob("*.xml"):
            try:
                names.update(read_scene(file).names)
            except DataError as error:
                problems.append(str(error))
    refuse(problems, f"voc: {len(problems)} xml files are wrong")
    if not names:
        raise DataError(f"{folders[0] / 'Annotations'}: no xml file has an object, so there is nothing to detect")
    return tuple(sorted(names))


def _read(root: Path, split: str, names: list[tuple[Path, str]], classes: tuple[str, ...]) -> Annotations:
    number = {name: label for label, name in enumerate(classes)}
    problems: list[str] = []
    scenes: list[Scene] = []
    for folder, name in names:
        file = folder / "Annotations" / f"{name}.xml"
        try:
            scene = read_scene(file)
        except DataError as error:
            problems.append(str(error))
            continue
        problems += [
            f"{file}: class {other!r} is not among the {len(classes)}; name them with the option 'classes'"
            for other in dict.fromkeys(scene.names)
            if other not in number
        ]
        scenes.append(scene)
    refuse(problems, f"voc {split}: {len(problems)} things are wrong in the xml files")
    counts = [len(scene.names) for scene in scenes]
    return collect(
        f"voc {split}",
        split,
        _images(root, names),
        np.repeat(np.arange(len(scenes)), counts),
        np.array([box for scene in scenes for box in scene.boxes], dtype=np.float64).reshape(-1, 4),
        np.array([number[name] for scene in scenes for name in scene.names], dtype=np.int64),
        np.array([flag for scene in scenes for flag in scene.difficult], dtype=bool),
        sizes=np.array([scene.size for scene in scenes]),
    )


def _images(root: Path, names: list[tuple[Path, str]]) -> list[str]:
    """Each image's path relative to the root: `.jpg`, or what else has this name in `JPEGImages`."""
    files: list[str] = []
    found = {
        folder: {path.stem: path.name for path in sorted((folder / "JPEGImages").glob("*"), reverse=True)}
        for folder in dict.fromkeys(folder for folder, _ in names)
    }
    for folder, name in names:
        place = folder.relative_to(root) / "JPEGImages" / found[folder].get(name, f"{name}.jpg")
        files.append(place.as_posix())
    return files
