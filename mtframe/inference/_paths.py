"""Where the files go that are made of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mtframe.errors import RecipeError

from ._names import alike


class Paths:
    """Where files go: each to a place of its own, and none to that of a picture that is read.

    Args:
        read: The pictures that are read, to be drawn or for a gallery.
        drawn: Where pictures are drawn, under names that differ.

    Raises:
        RecipeError: One of these would be written over one of those.
    """

    def __init__(self, read: Iterable[Path], drawn: Iterable[Path]) -> None:
        self._read = {_file(path) for path in read} - {None}
        self._taken = set[str]()
        folders = set[Path]()
        for path in drawn:
            if _file(path) in self._read:
                raise RecipeError(
                    f"--out: {path} is one of the pictures to read, and would be written over; choose another folder"
                )
            self._taken.add(_spelled(path))
            folders.add(path.parent)
        # Where folders will be is no place for files.
        self._taken.update(_spelled(path) for folder in folders for path in (folder, *folder.parents))

    def free(self, path: Path) -> Path:
        """A path, with the first number after its name that makes it free if it is not; it is taken from then on."""
        found, number = path, 1
        while _spelled(found) in self._taken or _file(found) in self._read:
            number += 1
            found = path.with_stem(f"{path.stem}-{number}")
        self._taken.add(_spelled(found))
        return found


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is there, whatever it is called and however its name is spelled; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _spelled(path: Path) -> str:
    return alike(os.path.abspath(path))
