"""Which way up labels are meant, where pictures are stored turned (EXIF)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mtframe.data import Header, Names, Upright, read_header
from mtframe.errors import BadImageError

# `fit`: as the size fits that the labels are for.
Orientation = Literal["fit", "stored", "upright"]

# Pictures of a split whose headers are looked at when it is made.
_LOOKED_AT = 100


@dataclass(frozen=True, slots=True)
class Turning:
    """Whether pictures are turned upright before their labels hold.

    Attributes:
        orientation: The option.
        otherwise: Whether a picture is turned whose size fits either way: a square, or one upside down.
    """

    orientation: Orientation = "fit"
    otherwise: bool = False

    def of(self, said: tuple[int, int]) -> Upright:
        """For a picture whose labels are for this (height, width)."""
        if self.orientation != "fit":
            return self.orientation == "upright"
        return lambda header: self.otherwise if (fits := _fits(header, said)) is None else fits


def learn_turning(
    what: str, root: Path, files: Names, sizes: np.ndarray, orientation: Orientation
) -> tuple[Turning, tuple[str, ...]]:
    """How pictures are to be turned, from the headers of some of them, and what to say of it.

    Args:
        what: Data set and split.
        root: What the files are relative to.
        files: I paths.
        sizes: (I, 2) height and width that the labels are for.
        orientation: The option.
    """
    if orientation != "fit" or not len(files):
        return Turning(orientation, orientation == "upright"), ()
    looked_at = sorted({int(place) for place in np.linspace(0, len(files) - 1, _LOOKED_AT)})
    votes: list[bool | None] = []
    for place in looked_at:
        try:
            header = read_header(root / files[place])
        except (BadImageError, OSError):
            # Told when it is read.
            continue
        if header.orientation != 1:
            votes.append(_fits(header, (int(sizes[place, 0]), int(sizes[place, 1]))))
    upright, stored, either = votes.count(True), votes.count(False), votes.count(None)
    turning = Turning(orientation, upright > stored)
    return turning, _said(what, len(looked_at), upright, stored, either, turning.otherwise)


def _said(what: str, looked_at: int, upright: int, stored: int, either: int, otherwise: bool) -> tuple[str, ...]:
    if not upright + stored + either:
        return ()
    ways = [
        f"{count} labelled {how}"
        for count, how in (
            (upright, "as they are seen"),
            (stored, "as they are stored"),
            (either, f"for a size that fits both, taken as {'seen' if otherwise else 'stored'}"),
        )
        if count
    ]
    return (
        f"{what}: of {looked_at} pictures looked at, {upright + stored + either} are stored turned (EXIF): "
        f"{', '.join(ways)}. The option 'orientation' says otherwise",
    )


def _fits(header: Header, said: Sequence[int]) -> bool | None:
    """Whether the turned picture has the size that labels are for, and the stored one not; None if size cannot tell."""
    stored, upright = header.size == tuple(said), header.upright == tuple(said)
    return upright if upright != stored else None
