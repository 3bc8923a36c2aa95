"""What lies in folders: images, folders of classes or people, and splits by any of their names. Imports no torch."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

# What an image's file is called, in lower case.
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

# What a film's file is called, in lower case.
FILM_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv",
)  # fmt: skip

# By split, what its folder, file or cell may be called, in lower case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}

# What systems and tools leave beside files and do not hide by a dot.
_SYSTEM = {
    "__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "desktop.ini", "lost+found",
    "system volume information", "thumbs.db",
}  # fmt: skip

# Reasons for which files and folders are left out, in words.
HIDDEN_FILES, HIDDEN_FOLDERS = "hidden files", "hidden folders"
OTHER_SUFFIX = "files of another suffix than an image's"
INNER_FOLDERS = "folders in a folder of images"
UNREADABLE_FOLDERS = "folders that cannot be read"
SEEN_FOLDERS = "links to folders that are read already"


@dataclass(frozen=True, slots=True)
class Images:
    """The images below a folder.

    Attributes:
        files: Their paths relative to it, with forward slashes, sorted.
        omitted: How much else lies there, by the reason for which it is no image.
    """

    files: list[str]
    omitted: Counter[str]


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder says that it is no data: `.ipynb_checkpoints`, `._a.jpg`, `__MACOSX`."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's, in any case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_film(name: str) -> bool:
    """Whether a file's name ends as a film's, in any case."""
    return os.path.splitext(name)[1].lower() in FILM_SUFFIXES


def images_below(folder: str | os.PathLike[str], beside: Iterable[str] = (), *, deep: bool = True) -> Images:
    """All images below a folder, in the one way in which data sets and `mtframe predict` look for them.

    Nothing hidden is taken (`is_hidden`), and the folder's own name does not matter. Links are followed, those to
    folders too, wherever they lead; but each folder is read once, so that a link to one above ends. Nothing is opened:
    what is no image in spite of its name shows when it is read.

    Args:
        folder: The folder; of one that is not there, no images.
        beside: Other suffixes that belong there, as `.txt` of labels, in lower case.
        deep: Whether to look into the folders in it; else they are counted as left out.
    """
    omitted = Counter[str]()
    files = sorted(_walked(folder, set(beside), omitted, deep=deep))
    return Images(files, +omitted)


def films_below(folder: str | os.PathLike[str]) -> list[str]:
    """All films below a folder, relative to it with forward slashes, sorted; found as `images_below` finds images."""
    return sorted(_walked(folder, (), Counter(), wanted=is_film))


def folders_in(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in a folder, and of links to some, sorted; none that is hidden, and none of no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not is_hidden(entry.name) and _is_folder(entry))
    except (OSError, ValueError):
        return []


def holds_classes(folder: str | os.PathLike[str], *, deep: bool = True) -> bool:
    """Whether two or more of the folders in a folder hold an image; looks no further than it must.

    Args:
        folder: The folder.
        deep: Whether the images may lie in folders below these.
    """
    holding = (
        name
        for name in folders_in(folder)
        if next(_walked(os.path.join(folder, name), (), Counter(), deep=deep), None) is not None
    )
    return len(list(islice(holding, 2))) == 2


def splits_among(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Which of some names is that of `train`, `val` and `test`, in any case; and the names that are none of these.

    Of two names of one split, as `val` and `valid`, the one that comes first in `SPLIT_NAMES` is taken; the other is
    among those that are left.
    """
    left = list(names)
    found: dict[str, str] = {}
    for split, called in SPLIT_NAMES.items():
        known = [name for name in left if name.lower() in called]
        if known:
            found[split] = min(known, key=lambda name: (called.index(name.lower()), name))
            left.remove(found[split])
    return found, left


def filled(template: str, split: str, exists: Callable[[str], bool]) -> str:
    """A path with `{split}` in it for a split, by the first of the split's names of which there is something.

    Args:
        template: The path; any other brace in it is its own.
        split: `train`, `val` or `test`.
        exists: Whether there is something at a path.

    Returns:
        The path with the split's own name where there is nothing by any.
    """
    paths = [template.replace("{split}", name) for name in _spelled(split)] if "{split}" in template else [template]
    return next((path for path in paths if exists(path)), paths[0])


def spelled_twice(template: str, split: str, taken: str, exists: Callable[[str], bool]) -> tuple[str, ...]:
    """What to say where a split is there by another of its names, too; see `filled`.

    Args:
        template: A path with `{split}` in it.
        split: `train`, `val` or `test`.
        taken: The path that is taken.
        exists: Whether there is something at a path.
    """
    others = [template.replace("{split}", name) for name in SPLIT_NAMES.get(split, ()) if "{split}" in template]
    there = [repr(path) for path in others if path.lower() != taken.lower() and exists(path)]
    return (f"{split}: {taken!r} is taken, and {' and '.join(there)} is not used",) if there else ()


def not_used(where: object, left: Sequence[str]) -> tuple[str, ...]:
    """What to say of folders beside those of splits, if there are any."""
    if not left:
        return ()
    named = ", ".join(map(repr, left[:3])) + (", ..." if len(left) > 3 else "")
    known = "; ".join(f"{split}: {', '.join(called)}" for split, called in SPLIT_NAMES.items())
    return (f"{where}: not used, as it is the name of no split, or another folder is that split: {named} ({known})",)


def held_out(files: Sequence[str], part: float, groups: Sequence[int] | None = None) -> list[bool]:
    """Which images validate where no file says so: the same ones on every machine.

    The path's digest decides, so that a file that comes or goes moves few others.

    Args:
        files: N paths.
        part: Of each group, 0 to below 1.
        groups: N numbers, e.g. labels; None for one group.
    """
    digests = [blake2b(os.fsencode(file), digest_size=8).digest() for file in files]
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups if groups is not None else [0] * len(files)):
        members.setdefault(group, []).append(place)
    chosen = [False] * len(files)
    for places in members.values():
        for place in sorted(places, key=digests.__getitem__)[: round(part * len(places))]:
            chosen[place] = True
    return chosen


def _spelled(split: str) -> list[str]:
    called = SPLIT_NAMES.get(split, (split,))
    return [*called, *(name.capitalize() for name in called), *(name.upper() for name in called)]


def _walked(
    folder: str | os.PathLike[str],
    beside: Collection[str],
    omitted: Counter[str],
    *,
    deep: bool = True,
    wanted: Callable[[str], bool] = is_image,
) -> Iterator[str]:
    """The images below a folder, or other wanted files, relative to it; what else is there is counted in `omitted`."""
    # Those above are seen: a link to one of them would bring other splits in. Where no link is followed, none matters.
    above = os.path.realpath(folder) if deep else ""
    seen = {_identity(path) for path in Path(above).parents} - {None}
    # Links come last: a folder that has two names is then known by its own.
    folders, links = deque([(os.fspath(folder), "")]), deque[tuple[str, str]]()
    while folders or links:
        place, inner = folders.popleft() if folders else links.popleft()
        if (known := _identity(place)) in seen:
            omitted[SEEN_FOLDERS] += 1
            continue
        seen.add(known)
        try:
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except (OSError, ValueError):
            # Of the folder itself nothing is said here: whoever asks knows what it should hold.
            omitted[UNREADABLE_FOLDERS] += bool(inner)
            continue
        for entry in found:
            is_folder = _is_folder(entry)
            if is_hidden(entry.name):
                # Else what systems keep for themselves would be counted, such as `.DS_Store`.
                if is_folder or is_image(entry.name):
                    omitted[HIDDEN_FOLDERS if is_folder else HIDDEN_FILES] += 1
            elif is_folder and not deep:
                omitted[INNER_FOLDERS] += 1
            elif is_folder:
                (links if entry.is_symlink() else folders).append((entry.path, f"{inner}{entry.name}/"))
            elif wanted(entry.name):
                yield inner + entry.name
            elif os.path.splitext(entry.name)[1].lower() not in beside:
                omitted[OTHER_SUFFIX] += 1


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Which folder it is, whatever the path to it; None of one that is not there."""
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, or to what may not be looked at.
        return False
