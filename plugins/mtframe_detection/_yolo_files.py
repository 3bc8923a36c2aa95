"""Which images and classes a YOLO data set has: its yaml, its folders, its lists."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from mtframe.errors import DataError, MtframeError, RecipeError
from mtframe.folders import (
    SPLIT_NAMES,
    filled,
    folders_in,
    held_out,
    images_below,
    is_hidden,
    spelled_twice,
    splits_among,
)
from mtframe.omissions import BAD_LABELS, Mistakes
from mtframe.paths import stays_inside
from mtframe.yaml import MOST_BYTES, parse_yaml

from ._files import begins_with_box
from ._reading import read_text

_YAML = ("data.yaml", "data.yml")

# Where a split's images are where no yaml says so.
_FOLDERS = ("images/{split}", "{split}/images")

# What lies beside images: labels, and what Ultralytics remembers of them.
_BESIDE = (".txt", ".cache", ".npy", ".json", ".xml")

_MOST_CLASSES = 100_000

# A class's number has fewer digits, where nothing but labels says how many there are.
_DIGITS = 5

# Files of labels that are looked into to find out whether a folder is YOLO's.
_MOST_LABELS = 20

# Bytes of a yaml, and their number, that are looked at to find out whether a folder is YOLO's.
_MOST_LOOKED_AT, _MOST_YAMLS = 1_000_000, 10


@dataclass(frozen=True, slots=True)
class Described:
    """A split's images, as paths relative to the root, the names of its classes, and what was left out."""

    images: list[str]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    omitted: Mapping[str, int] = field(default_factory=dict)


def describe(
    root: Path,
    split: str,
    data: str | None,
    classes: Sequence[str],
    bad_labels: float = BAD_LABELS,
    val_part: float = 0.2,
) -> Described:
    """Finds a split by the yaml, or by the folders where there is none.

    Raises:
        RecipeError: There is no such folder, split or yaml, or the classes are named twice.
        DataError: The yaml or a list is wrong, or there are no images.
    """
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'")
    file = _yaml_file(root, data)
    divided = file is None and _is_undivided(root)
    if file is None:
        entries, said = (["images"], ()) if divided else _plain_layout(root, split)
        names = tuple(classes) or _classes_file(root)
        if not names:
            names = _numbered_classes(root)
            said += (f"nothing names the classes; they are called {names[0]} to {names[-1]}, as labels number them",)
        base, where = PurePosixPath(), f"{root}"
    else:
        content, where = _load(file), str(file)
        if classes:
            raise RecipeError(f"classes: '{file}' says what they are; leave the option out")
        names = _names(content, where)
        base = _base(root, content)
        entries, said = _entries(content, split, where)
    _check_names(names, where)
    omitted, wrong = Counter[str](), list[str]()
    images = [image for entry in entries for image in _images(root, base, entry, where, omitted, wrong, bad_labels)]
    said += tuple(wrong)
    if not images:
        raise DataError(f"{where}: split {split!r} has no images in {', '.join(map(repr, entries))}")
    unique = list(dict.fromkeys(images))
    twice = len(images) - len(unique)
    if divided:
        if split == "test":
            raise RecipeError(f"no split 'test': '{root / 'images'}' has images and no folders of splits")
        held = held_out(unique, val_part)
        whole, unique = (
            len(unique),
            [image for image, validates in zip(unique, held, strict=True) if validates == (split == "val")],
        )
        if not unique:
            raise RecipeError(f"yolo: no image for {split!r} with val_part={val_part:g}")
        said += (f"{split}: no folders of splits; {len(unique)} of {whole} images, by val_part={val_part:g}",)
        if split == "val":
            # What belongs to no split is told once, by training.
            omitted.clear()
    if twice:
        said += (f"{split}: {twice} images are listed twice; taken once",)
        omitted["images that are listed twice"] += twice
    return Described(unique, names, said, omitted)


def recognised(place: Path) -> dict[str, str] | None:
    """The options for a folder or a yaml that is YOLO's; None for another."""
    try:
        if place.suffix.lower() in (".yaml", ".yml") and place.is_file():
            return {"root": str(place.parent), "data": place.name} if _is_ours(place) else None
        file = (_yaml_file(place, None) or _only_yaml(place)) if place.is_dir() else None
        if file is not None:
            return ({} if file.name in _YAML else {"data": file.name}) if _is_ours(file) else None
        if not _is_undivided(place):
            _plain_layout(place, "train")
        named = _classes_file(place)
    except MtframeError:
        return None
    # Images and labels alone; folders of that name may hold anything.
    return {} if named or any(begins_with_box(file) for file in islice(_label_files(place), _MOST_LABELS)) else None


def _is_ours(file: Path) -> bool:
    """Whether a yaml names classes and images to train on."""
    if file.stat().st_size > _MOST_LOOKED_AT:
        return False
    content = parse_yaml(read_text(file), str(file), DataError)
    return isinstance(content, dict) and "train" in content and ("names" in content or "nc" in content)


def _yaml_file(root: Path, data: str | None) -> Path | None:
    if data is None:
        return next((root / name for name in _YAML if (root / name).is_file()), None)
    place = _inside(root, PurePosixPath(), data)
    if place is None:
        raise RecipeError(f"data: {data!r} leads out of '{root}'; give the folder that holds everything as root")
    if not os.path.isfile(root / place):
        raise RecipeError(f"data: no file '{root / place}'")
    return root / place


def _only_yaml(root: Path) -> Path | None:
    """The one yaml in a folder that names classes and images; None where there are none or several."""
    with os.scandir(root) as entries:
        files = sorted(e.name for e in entries if e.name.lower().endswith((".yaml", ".yml")) and not is_hidden(e.name))
    found = []
    for name in files[:_MOST_YAMLS]:
        with suppress(DataError, OSError):
            found += [root / name] if _is_ours(root / name) else []
    return found[0] if len(found) == 1 else None


def _load(file: Path) -> Mapping[str, Any]:
    content = parse_yaml(read_text(file, MOST_BYTES), str(file), DataError)
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected names, train and val, got {type(content).__name__}")
    if "kpt_shape" in content:
        raise DataError(f"{file}: kpt_shape: labels with key points are not boxes alone, and are not read")
    return content


def _names(content: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = content.get("names")
    if names is None and "nc" in content:
        return _numbered(content["nc"], where)
    if isinstance(names, dict):
        # Quoted, as some tools write them, numbers are text.
        names = {_key(number): name for number, name in names.items()}
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


def _numbered(count: Any, where: str) -> tuple[str, ...]:
    """Names of classes of which there is only the number, as Ultralytics calls them."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= _MOST_CLASSES:
        raise DataError(f"{where}: nc: expected a number of classes, 1 to {_MOST_CLASSES}, got {count!r}")
    return tuple(f"class_{number}" for number in range(count))


def _key(number: Any) -> Any:
    return int(number) if isinstance(number, str) and number.isdecimal() and len(number) < 10 else number


def _classes_file(root: Path) -> tuple[str, ...]:
    """The names in a file of classes; none where there is no such file.

    Raises:
        DataError: There are no labels from which classes could be numbered, either, or another yaml names them.
    """
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            # Not without empty lines: a class's number is that of its line.
            return tuple(line.strip() for line in read_text(file).rstrip().splitlines())
    # A yaml of another name may say it; whose numbers then have names.
    if next(_label_files(root), None) is not None and _only_yaml(root) is None:
        return ()
    raise DataError(
        f"{root}: nothing says what the classes are called; expected '{_YAML[0]}' or 'classes.txt', or the option "
        "'classes', or 'data' for a yaml of another name"
    )


def _label_files(root: Path) -> Iterator[Path]:
    """Files of labels of any split, in `labels` or in `SPLIT/labels`."""
    for folder in ("labels", *(f"{name}/labels" for called in SPLIT_NAMES.values() for name in called)):
        for place, _, names in os.walk(root / folder):
            yield from (Path(place) / name for name in sorted(names) if name.endswith(".txt") and not is_hidden(name))


def _numbered_classes(root: Path) -> tuple[str, ...]:
    """Names by number of as many classes as labels of any split name: every split needs the same ones."""
    highest = 0
    for file in _label_files(root):
        with suppress(DataError):
            for line in read_text(file).splitlines():
                word = line.split(maxsplit=1)[0] if line.strip() else ""
                # What is wrong costs its image; a number beyond all reason would cost a row of weights for each.
                if word.isdecimal() and len(word) < _DIGITS:
                    highest = max(highest, int(word))
    return _numbered(highest + 1, f"{root}")


def _is_undivided(root: Path) -> bool:
    """Whether images lie right in the folder `images`, and their labels in `labels`, without folders of splits."""
    if not os.path.isdir(root / "labels") or not images_below(root / "images", _BESIDE, deep=False).files:
        return False
    return not splits_among(folders_in(root / "images"))[0]


def _check_names(names: tuple[str, ...], where: str) -> None:
    if not all(names):
        raise DataError(f"{where}: class {names.index('')} has no name")
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{where}: class {repeated[0]!r} stands twice")


def _plain_layout(root: Path, split: str) -> tuple[list[str], tuple[str, ...]]:
    """The folder of a split, by any of its names; and what to say of others."""

    def is_folder(path: str) -> bool:
        return os.path.isdir(root / path)

    for template in _FOLDERS:
        if is_folder(folder := filled(template, split, is_folder)):
            return [folder], spelled_twice(template, split, folder, is_folder)
    beside = (
        template for template in _FOLDERS if any(is_folder(filled(template, other, is_folder)) for other in SPLIT_NAMES)
    )
    expected = next(beside, _FOLDERS[0]).replace("{split}", split)
    raise RecipeError(f"no split {split!r}: no folder '{root / expected}', and no {_YAML[0]} in '{root}'")


def _base(root: Path, content: Mapping[str, Any]) -> PurePosixPath:
    """What entries are relative to: `path`, where that is a folder inside the root."""
    path = content.get("path")
    if isinstance(path, str) and stays_inside(path) and os.path.isdir(root / path):
        return PurePosixPath(path)
    return PurePosixPath()


def _entries(content: Mapping[str, Any], split: str, where: str) -> tuple[list[str], tuple[str, ...]]:
    """What the yaml has for a split, by any of its names; and what to say of others."""
    key = filled("{split}", split, lambda name: bool(content.get(name)))
    entries = content.get(key)
    if not entries:
        there = [name for called in SPLIT_NAMES.values() for name in called if content.get(name)]
        raise RecipeError(f"no split {split!r}: {where} has {', '.join(there) or 'none'}")
    entries = [entries] if isinstance(entries, str) else entries
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"{where}: {key}: expected a folder, a .txt file or a list of these")
    return entries, spelled_twice("{split}", split, key, lambda name: bool(content.get(name)))


def _images(
    root: Path,
    base: PurePosixPath,
    entry: str,
    where: str,
    omitted: Counter[str],
    said: list[str],
    bad_labels: float,
) -> list[str]:
    """Images of one entry of a split, relative to the root; what else is there is counted in `omitted` and `said`."""
    place = _inside(root, base, entry)
    if place is None and entry.startswith("../"):
        # Roboflow writes `../train/images` for what lies beside the yaml.
        place = _inside(root, base, entry.removeprefix("../"))
    if place is None:
        raise DataError(f"{where}: {entry!r} leads out of '{root}'; give the folder that holds everything as root")
    path = root / place
    if os.path.isdir(path):
        found = images_below(path, _BESIDE)
        omitted.update(found.omitted)
        return [(path / file).relative_to(root).as_posix() for file in found.files]
    if path.suffix == ".txt" and os.path.isfile(path):
        return _listed(root, path, omitted, said, bad_labels)
    raise DataError(f"{where}: no folder or list of images '{path}' (looked for inside the root, whatever 'path' says)")


def _listed(root: Path, file: Path, omitted: Counter[str], said: list[str], bad_labels: float) -> list[str]:
    """The images that a list names, relative to the root or, with `./` in front, to the list's own folder."""
    images, mistakes = list[str](), Mistakes()
    beside = PurePosixPath(file.parent.relative_to(root).as_posix())
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (name := line.strip()):
            continue
        place = _inside(root, beside if name.startswith("./") else PurePosixPath(), name)
        if place is None or not place.name:
            mistakes.add(number, f"line {number}: {name!r} is not inside '{root}'")
        else:
            images.append(place.as_posix())
    said += mistakes.excused(len(images) + len(mistakes), bad_labels, str(file), "lines", "they are wrong")
    if mistakes:
        omitted["lines of lists that are wrong"] += len(mistakes)
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
