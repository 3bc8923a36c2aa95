"""Which images and classes a YOLO data set has: its yaml, its folders, its lists."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mtframe.data import IMAGE_SUFFIXES
from mtframe.errors import DataError, RecipeError
from mtframe.paths import stays_inside
from mtframe.yaml import MOST_BYTES, parse_yaml

from ._reading import read_text, refuse

_IMAGES = (*IMAGE_SUFFIXES, ".pgm")
_YAML = ("data.yaml", "data.yml")


@dataclass(frozen=True, slots=True)
class Described:
    """A split's images, as paths relative to the root, the names of its classes, and notes on what was left out."""

    images: list[str]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def describe(root: Path, split: str, data: str | None, classes: Sequence[str]) -> Described:
    """Finds a split by the yaml, or by the folders where there is none.

    Raises:
        RecipeError: There is no such folder, split or yaml, or the classes are named twice.
        DataError: The yaml or a list is wrong, or there are no images.
    """
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'")
    file = _yaml_file(root, data)
    if file is None:
        names = tuple(classes) or _classes_file(root)
        entries = _plain_layout(root, split)
        base, where = PurePosixPath(), f"{root}"
    else:
        content, where = _load(file), str(file)
        if classes:
            raise RecipeError(f"classes: '{file}' says what they are; leave the option out")
        names = _names(content, where)
        base = _base(root, content)
        entries = _entries(content, split, where)
    _check_names(names, where)
    images = [image for entry in entries for image in _images(root, base, entry, where)]
    if not images:
        raise DataError(f"{where}: split {split!r} has no images in {', '.join(map(repr, entries))}")
    unique = list(dict.fromkeys(images))
    twice = len(images) - len(unique)
    return Described(unique, names, (f"{split}: {twice} images are listed twice; taken once",) if twice else ())


def _yaml_file(root: Path, data: str | None) -> Path | None:
    if data is None:
        return next((root / name for name in _YAML if (root / name).is_file()), None)
    place = _inside(root, PurePosixPath(), data)
    if place is None:
        raise RecipeError(f"data: {data!r} leads out of '{root}'; give the folder that holds everything as root")
    if not os.path.isfile(root / place):
        raise RecipeError(f"data: no file '{root / place}'")
    return root / place


def _load(file: Path) -> Mapping[str, Any]:
    content = parse_yaml(read_text(file, MOST_BYTES), str(file), DataError)
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected names, train and val, got {type(content).__name__}")
    if "kpt_shape" in content:
        raise DataError(f"{file}: kpt_shape: labels with key points are not boxes alone, and are not read")
    return content


def _names(content: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{where}: names: expected the numbers 0 to {len(names) - 1}, each once")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{where}: names: expected a list of class names, or a mapping of 0, 1, ... to them")
    for number, name in enumerate(names):
        # Unquoted, `no` is false and `~` nothing.
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise DataError(f"{where}: names: class {number} should be text, got {type(name).__name__}; quote it")
    if "nc" in content and content["nc"] != len(names):
        raise DataError(f"{where}: nc says {content['nc']!r} classes, names has {len(names)}")
    return tuple(map(str, names))


def _classes_file(root: Path) -> tuple[str, ...]:
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            # Not without empty lines: a class's number is that of its line.
            return tuple(line.strip() for line in read_text(file).rstrip().splitlines())
    raise DataError(
        f"{root}: nothing says what the classes are called; expected '{_YAML[0]}' or 'classes.txt', or the option "
        "'classes'"
    )


def _check_names(names: tuple[str, ...], where: str) -> None:
    if not all(names):
        raise DataError(f"{where}: class {names.index('')} has no name")
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{where}: class {repeated[0]!r} stands twice")


def _plain_layout(root: Path, split: str) -> list[str]:
    if not os.path.isdir(root / "images" / split):
        raise RecipeError(f"no split {split!r}: no folder '{root / 'images' / split}', and no {_YAML[0]} in '{root}'")
    return [f"images/{split}"]


def _base(root: Path, content: Mapping[str, Any]) -> PurePosixPath:
    """What entries are relative to: `path`, where that is a folder inside the root."""
    path = content.get("path")
    if isinstance(path, str) and stays_inside(path) and os.path.isdir(root / path):
        return PurePosixPath(path)
    return PurePosixPath()


def _entries(content: Mapping[str, Any], split: str, where: str) -> list[str]:
    entries = content.get(split)
    if not entries:
        there = [name for name in ("train", "val", "test") if content.get(name)]
        raise RecipeError(f"no split {split!r}: {where} has {', '.join(there) or 'none'}")
    entries = [entries] if isinstance(entries, str) else entries
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"{where}: {split}: expected a folder, a .txt file or a list of these")
    return entries


def _images(root: Path, base: PurePosixPath, entry: str, where: str) -> list[str]:
    """Images of one entry of a split, relative to the root."""
    place = _inside(root, base, entry)
    if place is None and entry.startswith("../"):
        # Roboflow writes `../train/images` for what lies beside the yaml.
        place = _inside(root, base, entry.removeprefix("../"))
    if place is None:
        raise DataError(f"{where}: {entry!r} leads out of '{root}'; give the folder that holds everything as root")
    path = root / place
    if os.path.isdir(path):
        return _folder(root, path)
    if path.suffix == ".txt" and os.path.isfile(path):
        return _listed(root, path)
    raise DataError(f"{where}: no folder or list of images '{path}' (looked for inside the root, whatever 'path' says)")


def _folder(root: Path, path: Path) -> list[str]:
    # Without what macOS leaves beside files, such as `._a.jpg`, which is no image.
    found = [
        Path(folder, name).relative_to(root).as_posix()
        for folder, _, names in os.walk(path)
        for name in names
        if name.lower().endswith(_IMAGES) and not name.startswith(".")
    ]
    return sorted(found)


def _listed(root: Path, file: Path) -> list[str]:
    """The images that a list names, relative to the root or, with `./` in front, to the list's own folder."""
    images, problems = [], []
    beside = PurePosixPath(file.parent.relative_to(root).as_posix())
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (name := line.strip()):
            continue
        place = _inside(root, beside if name.startswith("./") else PurePosixPath(), name)
        if place is None or not place.name:
            problems.append(f"line {number}: {name!r}")
        else:
            images.append(place.as_posix())
    refuse(problems, f"{file}: {len(problems)} images are not inside '{root}'")
    return images


def _inside(root: Path, base: PurePosixPath, name: str) -> PurePosixPath | None:
    """A path relative to the root; None if it leads out of it. An absolute one may lead into it."""
    if os.path.isabs(name):
        try:
            inner = PurePosixPath(Path(name).relative_to(root.absolute()).as_posix())
            return inner if ".." not in inner.parts else None
        except ValueError:
            return None
    return base / name if stays_inside(name) or not PurePosixPath(name).parts else None
