"""Which images a split of Pascal VOC's format has, and where their xml files are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mtframe.errors import DataError, RecipeError
from mtframe.folders import folders_in, held_out, images_below, is_hidden, is_image, not_used, splits_among
from mtframe.omissions import BAD_LABELS, Mistakes
from mtframe.paths import stays_inside

from ._reading import read_text

# What stands behind a name in the list of a class: whether an image has it, or has it but hard to see.
_FLAGS = ("-1", "0", "1")

_XML, _IMAGES, _LISTS = "Annotations", "JPEGImages", Path("ImageSets") / "Main"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one image's labels are, and the image's own path relative to the root."""

    xml: Path
    image: str


@dataclass(frozen=True, slots=True)
class Found:
    """The images of a split.

    Attributes:
        places: Each image.
        folders: Where xml files are, also those of other splits.
        notes, omitted: What was left out, in words and counted.
    """

    places: list[Place]
    folders: list[Path]
    notes: tuple[str, ...] = ()
    omitted: Mapping[str, int] = field(default_factory=dict)


def find_split(
    root: Path,
    split: str,
    listed: str,
    years: tuple[int, ...],
    val_part: float,
    bad_labels: float = BAD_LABELS,
) -> Found:
    """Finds a split: by lists, by folders of splits, or by a part of all images that is held out.

    Args:
        root: The folder that holds everything.
        split: `train`, `val` or `test`.
        listed: Name of its list.
        years: Which of several folders `VOC2007`, ... are taken.
        val_part: Part of the images that validates where nothing divides them.
        bad_labels: Part of the lines of a list that may be left out, since they are wrong.

    Raises:
        RecipeError: There is no such folder, list or split.
        DataError: A list is wrong, or there are no images.
    """
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'")
    if not (root / _XML).is_dir() and not years:
        splits, others = splits_among(folders_in(root))
        held = {name: place for name, place in splits.items() if _home(root / place) is not None}
        if held:
            if split not in held:
                raise RecipeError(f"voc: no split {split!r}: '{root}' has {', '.join(held.values())}")
            places, omitted = _all(root, root / held[split])
            folders = [home for place in held.values() if (home := _home(root / place)) is not None]
            return Found(_some(places, root / held[split]), folders, not_used(root, others), omitted)
        if xml_files(root):
            return _divided(root, [root], split, val_part)
    folders = _folders(root, years)
    if not any((folder / _LISTS).is_dir() for folder in folders):
        return _divided(root, folders, split, val_part)
    names, said, wrong = _listed(folders, listed, bad_labels)
    stems = {folder: _stems(folder) for folder in dict.fromkeys(folder for folder, _ in names)}
    places = [
        Place(folder / _XML / f"{name}.xml", _image(root, folder / _IMAGES, name, stems[folder][0]))
        for folder, name in names
    ]
    return Found(places, [folder / _XML for folder in folders], said, wrong)


def xml_files(folder: Path) -> list[str]:
    """Names of the xml files in a folder, sorted; none of a folder that is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name.lower().endswith(".xml") and not is_hidden(e.name))
    except OSError:
        return []


def _home(folder: Path) -> Path | None:
    """Where the xml files of a folder are: in its `Annotations`, or right in it; None where there are none."""
    return next((place for place in (folder / _XML, folder) if xml_files(place)), None)


def _all(root: Path, folder: Path) -> tuple[list[Place], Counter[str]]:
    """Every image of a folder that has an xml, and what is left out."""
    home = _home(folder)
    if home is None:
        return [], Counter()
    stems, omitted = _stems(folder)
    files = xml_files(home)
    images = folder / _IMAGES if home != folder else folder
    bare = set(stems) - {os.path.splitext(file)[0] for file in files}
    omitted["images without an xml file"] += len(bare)
    places = [Place(home / file, _image(root, images, os.path.splitext(file)[0], stems)) for file in files]
    return places, +omitted


def _some(places: list[Place], folder: Path) -> list[Place]:
    if not places:
        raise DataError(f"voc: no xml file in '{folder}'")
    return places


def _divided(root: Path, folders: Sequence[Path], split: str, val_part: float) -> Found:
    """Images that nothing divides into splits: a part of them validates."""
    if split == "test":
        raise RecipeError(
            f"voc: no split 'test': nothing in '{root}' divides its images; train and val are cut from all"
        )
    places, omitted = list[Place](), Counter[str]()
    for folder in folders:
        found, left = _all(root, folder)
        places += found
        omitted += left
    held = held_out([place.image for place in places], val_part)
    chosen = [place for place, validates in zip(places, held, strict=True) if validates == (split == "val")]
    if places and not chosen:
        raise RecipeError(f"voc: no image for {split!r} with val_part={val_part:g}")
    homes = [home for folder in folders if (home := _home(folder)) is not None]
    note = (
        f"{split}: no lists and no folders of splits; {len(chosen)} of {len(places)} images, by val_part={val_part:g}"
    )
    # What belongs to no split is told once, not by each that is cut from the folder.
    return Found(_some(chosen, folders[0]), homes, (note,), omitted if split == "train" else {})


def _folders(root: Path, years: tuple[int, ...]) -> list[Path]:
    """The folders that have `Annotations`."""
    if (root / _XML).is_dir():
        if years:
            raise RecipeError(f"years: '{root}' is not divided into years; leave the option out")
        return [root]
    found = sorted(
        path for top in (root, root / "VOCdevkit") for path in top.glob("VOC[0-9]*") if (path / _XML).is_dir()
    )
    chosen = [path for path in found if not years or path.name in {f"VOC{year}" for year in years}]
    if not chosen or (years and len(chosen) < len(years)):
        there = ", ".join(path.name for path in found) or "neither Annotations nor VOC2007, VOC2012, ..."
        wanted = "years: not all are there" if years else "root: not in VOC's layout"
        raise RecipeError(f"{wanted}; '{root}' has {there}")
    return chosen


def _listed(
    folders: Sequence[Path], name: str, bad_labels: float
) -> tuple[list[tuple[Path, str]], tuple[str, ...], dict[str, int]]:
    """Folder and name of each image on a list; and what is left out, in words and counted."""
    files = [(folder, folder / _LISTS / f"{name}.txt") for folder in folders]
    there = [(folder, file) for folder, file in files if file.is_file()]
    if not there:
        raise RecipeError(f"voc: no list {name!r}: no file '{files[0][1]}'")
    names, said, wrong = list[tuple[Path, str]](), tuple[str, ...](), 0
    for folder, file in there:
        lines = [line.strip() for line in read_text(file).split("\n") if line.strip()]
        mistakes = Mistakes()
        for number, line in enumerate(lines):
            if not stays_inside(line):
                mistakes.add(number, f"{line!r} leads out of '{folder}'")
        said += mistakes.excused(len(lines), bad_labels, str(file), "names", "they are wrong")
        wrong += len(mistakes)
        right = (line for number, line in enumerate(lines) if number not in mistakes)
        names += [(folder, image) for image in dict.fromkeys(_name(folder, line) for line in right)]
    if not names:
        raise DataError(f"{there[0][1]}: no images are listed")
    return names, said, {"names on lists that are wrong": wrong} if wrong else {}


def _name(folder: Path, line: str) -> str:
    """The image that a line names: without a flag, and without a suffix that its xml has not."""
    *words, last = line.split()
    names = [line]
    if words and last in _FLAGS:
        names.append(line.removesuffix(last).rstrip())
    names += [os.path.splitext(name)[0] for name in names if is_image(name)]
    return next((name for name in names if os.path.isfile(folder / _XML / f"{name}.xml")), names[-1])


def _stems(folder: Path) -> tuple[dict[str, str], Counter[str]]:
    """The images of a folder by their names without suffix, and what else lies there."""
    images = folder / _IMAGES if (folder / _IMAGES).is_dir() else folder
    found = images_below(images, (".xml", ".txt"), deep=False)
    return {os.path.splitext(name)[0]: name for name in reversed(found.files)}, found.omitted


def _image(root: Path, folder: Path, name: str, stems: Mapping[str, str]) -> str:
    """An image's path relative to the root: `.jpg`, or what else has this name."""
    return (folder.relative_to(root) / stems.get(name, f"{name}.jpg")).as_posix()
