"""What the files that are made of pictures are called: after their sources, and no two alike."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mtframe.drawing import FORMATS

# What may be made of a source: a picture, or a film and what is said of its frames.
_SUFFIXES = (*FORMATS, "mp4", "jsonl")


def alike(name: str) -> str:
    """Equal for names that a file system may take for one: some take no notice of case, or of Unicode's normal form."""
    # Canonical caseless matching: Unicode 15.0, definition 145.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


@dataclass(slots=True)
class _Named:
    """A picture's name, which may grow.

    Attributes:
        folder: The picture's folder, whole.
        above: Those of the path's folders that a name may begin with, outermost first.
        inner: The folders that it has anyway.
        stem: What the picture is called, without its suffix.
        suffix: In lower case, without a dot.
        more: How many of the folders above are in the name.
        typed: Whether the suffix is.
    """

    folder: str
    above: tuple[str, ...]
    inner: tuple[str, ...]
    stem: str
    suffix: str
    more: int = 0
    typed: bool = False

    @classmethod
    def of(cls, file: Path, inner: Path) -> _Named:
        whole, depth = Path(os.path.abspath(file)), len(inner.parts)
        # The root is no name.
        above = whole.parts[1:-depth] if whole.anchor else whole.parts[:-depth]
        return cls(str(whole.parent), above, inner.parts[:-1], inner.stem, inner.suffix[1:].lower())

    @property
    def name(self) -> str:
        stem = f"{self.stem}_{self.suffix}" if self.typed and self.suffix else self.stem
        path = "/".join((*self.inner, stem))
        return "_".join((*self.above[len(self.above) - self.more :], path))


def distinct_names(files: Sequence[tuple[Path, Path]]) -> list[str]:
    """A name without suffix for each picture: its path in the folder that was given.

    Of those that would be alike, all have in front what tells them apart of the path, or their suffixes behind. Only
    where the whole path does not tell is a number appended.

    Args:
        files: Each picture, and its path in the folder that was given.
    """
    named = [_Named.of(file, inner) for file, inner in files]
    while sum(_told_apart(group) for group in _clashing(named)):
        pass
    clashing = {id(one) for group in _clashing(named) for one in group}
    folders = {alike(folder) for one in named for folder in _folders(one.name)}
    taken = {alike(one.name) for one in named if id(one) not in clashing}
    names = []
    for one in named:
        name, number = one.name, 1
        while id(one) in clashing and (alike(name) in taken or _is_folder(name, folders)):
            number += 1
            name = f"{one.name}-{number}"
        taken.add(alike(name))
        names.append(name)
    return names


def _clashing(named: Iterable[_Named]) -> Iterator[list[_Named]]:
    """Those whose names are alike, together; and those at whose places others need folders."""
    groups: dict[str, list[_Named]] = {}
    for one in named:
        groups.setdefault(alike(one.name), []).append(one)
    folders = {alike(folder) for group in groups.values() for one in group for folder in _folders(one.name)}
    for group in groups.values():
        if len(group) > 1 or _is_folder(group[0].name, folders):
            yield group


def _told_apart(group: Sequence[_Named]) -> bool:
    """Adds to names that are alike what may tell them apart; whether there was something to add."""
    if len(group) > 1 and len({one.folder for one in group}) == 1:
        if len({(one.typed, one.suffix) for one in group}) == 1:
            return False
        growing = [one for one in group if not one.typed]
        for one in growing:
            one.typed = True
    else:
        growing = [one for one in group if one.more < len(one.above)]
        for one in growing:
            one.more += 1
    return bool(growing)


def _folders(name: str) -> Iterable[str]:
    return (str(folder) for folder in PurePosixPath(name).parents)


def _is_folder(name: str, folders: set[str]) -> bool:
    """Whether a picture or film of this name, in one of the formats, would be where a folder is."""
    return any(alike(f"{name}.{suffix}") in folders for suffix in _SUFFIXES)
