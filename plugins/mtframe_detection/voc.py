"""Pascal VOC's layout on disk: photographs, one xml an image with its boxes, and lists of the splits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mtframe.data import read_header
from mtframe.errors import DataError, MtframeError, RecipeError
from mtframe.omissions import BAD_LABELS, WRONG_LABELS, Mistakes, check_part, refuse
from mtframe.paths import stays_inside

from ._reading import check_split
from ._turning import Orientation
from ._voc_files import Place, find_split, xml_files
from ._voc_xml import Scene, read_scene
from .annotations import AnnotatedImages, Annotations, collect

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


# Files of which `recognises` looks at the names of classes.
_LOOKED_INTO = 20


class Voc(AnnotatedImages):
    """Images with boxes in Pascal VOC's layout.

    ```
    ROOT/Annotations/2008_000008.xml         ROOT/ImageSets/Main/train.txt   one name a line
    ROOT/JPEGImages/2008_000008.jpg          ROOT/ImageSets/Main/val.txt
    ```

    Lists may have a flag (1, 0, -1) behind the name. These folders may also be in `ROOT/VOC2007`, `ROOT/VOC2012`, ...
    or in the same under `ROOT/VOCdevkit`, as the archives unpack; a split is then what all of them have of it. VOC's
    corners count from 1 and include the last pixel; here they count from 0 and do not, so 1 is taken off the upper left
    ones. Objects marked `difficult` are neither learned nor punished, as crowd regions of COCO.

    Other tools write xml files beside the images: in a folder for each split (`ROOT/train`, `ROOT/valid`), or right in
    the root. Where neither lists nor folders of splits are there, a part of the images validates (`val_part`), chosen
    by a digest of their names. Where an xml has no size, the image's own is taken.

    Boxes are clipped to their image. Boxes without area and boxes that stand twice are left out and counted in
    `notes`. So is an image with anything else that is wrong in its xml, as long as these are few; more are an error.

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
        val_part: Part of the images that validates where there are neither lists nor folders of splits.
        bad_labels: Part of the images that may be left out, since something is wrong in their xml.
        orientation: Which way up boxes are meant of pictures that are stored turned (EXIF): as their size says (`fit`),
            which does not tell of squares, as they are `stored`, or `upright`, as they are seen.

    Attributes:
        info: Names of the classes.
        notes: What was left out, for people to read.
        omitted: How much was left out, by reason.

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
        val_part: float = 0.2,
        bad_labels: float = BAD_LABELS,
        orientation: Orientation = "fit",
    ) -> None:
        check_part(val_part=val_part, bad_labels=bad_labels)
        if not classes or (len(set(classes)) < len(classes) and not isinstance(classes, str)):
            raise RecipeError(f"classes: expected 'voc', 'found' or names that differ, got {list(classes)}")
        lists = {"train": train, "val": val, "test": test}
        check_split("voc", split, self.splits)
        if not stays_inside(lists[split]):
            raise RecipeError(f"{split}: expected the name of a list in ImageSets/Main, got {lists[split]!r}")
        root = Path(root)
        found = find_split(root, split, lists[split], years, val_part, bad_labels)
        known = _names_in(found.folders) if classes == "found" else CLASSES if classes == "voc" else tuple(classes)
        annotations = _read(root, split, found.places, known, bad_labels, upright=orientation == "upright")
        super().__init__(
            root,
            split,
            annotations.noting(*found.notes).omitting(found.omitted),
            known,
            keep_empty=keep_empty,
            orientation=orientation,
        )

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """The options for a folder with xml files of VOC, `classes` where its own are not VOC's; see `Recognises`."""
        try:
            folders = find_split(Path(root), "train", "train", (), 0.2).folders
            files = [folder / name for folder in folders for name in xml_files(folder)[:_LOOKED_INTO]]
        except MtframeError:
            return None
        scenes = []
        for file in files[:_LOOKED_INTO]:
            with suppress(MtframeError):
                scenes.append(read_scene(file))
        if not scenes:
            return None
        return {} if {name for scene in scenes for name in scene.names} <= set(CLASSES) else {"classes": "found"}


def _names_in(folders: Sequence[Path]) -> tuple[str, ...]:
    """Every class in any xml file, also of other splits: they need the same ones."""
    names: set[str] = set()
    problems = []
    for folder in folders:
        for file in xml_files(folder):
            try:
                names.update(read_scene(folder / file).names)
            except DataError as error:
                # Whose image it is, its split tells.
                problems.append(str(error))
    if not names:
        refuse(problems, f"voc: {len(problems)} xml files are wrong")
        raise DataError(f"{folders[0]}: no xml file has an object, so there is nothing to detect")
    return tuple(sorted(names))


def _read(
    root: Path, split: str, places: Sequence[Place], classes: tuple[str, ...], bad_labels: float, *, upright: bool
) -> Annotations:
    number = {name: label for label, name in enumerate(classes)}
    mistakes = Mistakes()
    strange: list[str] = []
    kept: list[tuple[str, Scene, tuple[int, int]]] = []
    for index, place in enumerate(places):
        try:
            scene = read_scene(place.xml)
            size = scene.size or _own_size(root / place.image, scene, upright=upright)
        except DataError as error:
            mistakes.add(index, str(error))
            continue
        strange += [
            f"{place.xml}: class {other!r} is not among the {len(classes)}; name them with the option 'classes'"
            for other in dict.fromkeys(scene.names)
            if other not in number
        ]
        kept.append((place.image, scene, size))
    refuse(strange, f"voc {split}: {len(strange)} things are wrong in the xml files")
    notes = mistakes.excused(len(places), bad_labels, f"voc {split}", "images")
    if not kept:
        raise DataError(f"voc {split}: not one image has labels")
    scenes = [scene for _, scene, _ in kept]
    counts = [len(scene.names) for scene in scenes]
    annotations = collect(
        f"voc {split}",
        split,
        [image for image, _, _ in kept],
        np.repeat(np.arange(len(scenes)), counts),
        np.array([box for scene in scenes for box in scene.boxes], dtype=np.float64).reshape(-1, 4),
        np.array([number[name] for scene in scenes for name in scene.names], dtype=np.int64),
        np.array([flag for scene in scenes for flag in scene.difficult], dtype=bool),
        sizes=np.array([size for _, _, size in kept]),
    )
    return annotations.noting(*notes).omitting({WRONG_LABELS: len(mistakes)})


def _own_size(image: Path, scene: Scene, *, upright: bool) -> tuple[int, int]:
    """An image's (height, width) where its xml does not say it: as it is stored, unless a box fits only upright."""
    header = read_header(image)
    height, width = header.size
    reach = np.array(scene.boxes, dtype=np.float64).reshape(-1, 4)[:, 2:].max(axis=0, initial=0)
    fits = reach[0] <= width and reach[1] <= height
    seen = reach[0] <= header.upright[1] and reach[1] <= header.upright[0]
    return header.upright if upright or (seen and not fits) else header.size
