"""MXNet's indexed RecordIO: many images in one file, and their places in another."""

# Shapes: R records.

from __future__ import annotations

import mmap
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mtframe.errors import DataError, RecipeError
from mtframe.paths import regular

MAGIC = 0xCED7230A

# A record's part: the magic number, then 3 bits that say which part it is and 29 bits of length.
_PART = struct.Struct("<II")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)

# What stands before an image: number of labels (0 for the one in the header), the label, two ids.
_HEADER = struct.Struct("<IfQQ")
# Labels that are looked at without reading an image.
_MOST_LABELS = 64


class MappedFile:
    """A file's bytes by place, opened in every process on its first use; picklable.

    Raises:
        RecipeError: There is no such file.
    """

    def __init__(self, path: Path, what: str) -> None:
        if not path.is_file():
            raise RecipeError(f"no file '{path}', {what}")
        self.path = path
        self.size = path.stat().st_size
        self._map: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    def read(self, start: int, length: int) -> bytes | None:
        """The bytes from `start` on, or None if the file does not have them all."""
        if start < 0 or start + length > self.size:
            return None
        if self._map is None:
            try:
                with regular(self.path).open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DataError(f"{self.path}: cannot be read ({error})") from None
        found = self._map[start : start + length]
        return found if len(found) == length else None


class Records:
    """Records of a pair of files, `NAME.rec` and `NAME.idx`, by key.

    Args:
        path: The `.rec` file. Its index lies beside it: lines of a key and the record's place.

    Attributes:
        keys: (R,) int64, ascending.

    Raises:
        RecipeError: A file is not there.
        DataError: The index is malformed, or has one place for two keys.
    """

    def __init__(self, path: Path) -> None:
        self.file = MappedFile(path, "which holds the images (InsightFace's train.rec)")
        self.keys, self._places = _read_index(path.with_suffix(".idx"))
        # Where each record has ended: at the next one's place.
        order = np.argsort(self._places)
        self._ends = np.empty_like(self._places)
        self._ends[order] = np.append(self._places[order][1:], self.file.size)

    def __getitem__(self, key: int) -> bytes:
        """The record of that key.

        Raises:
            DataError: There is none, or it is damaged or cut off.
        """
        return self._record(key, None)

    def labels(self, key: int) -> tuple[float, ...]:
        """The labels of record `key`, without reading its image."""
        return self._split(key, self._record(key, _HEADER.size + 4 * _MOST_LABELS))[0]

    def begun(self, keys: np.ndarray) -> np.ndarray:
        """(N,) bool: of which of (N,) keys in the index the file has at least the beginning of the record."""
        places = self._places[np.searchsorted(self.keys, keys)]
        return np.asarray((places >= 0) & (places + _PART.size <= self.file.size))

    def image(self, key: int) -> tuple[tuple[float, ...], bytes]:
        """The labels and the encoded image of record `key`; no bytes where the record is labels only."""
        return self._split(key, self[key])

    def _record(self, key: int, most: int | None) -> bytes:
        """The record, or its first `most` bytes.

        A record that contains the magic number is written in parts, cut where the number was.
        """
        index = int(np.searchsorted(self.keys, key))
        if index == len(self.keys) or self.keys[index] != key:
            raise DataError(f"{self.file.path}: no record {key} in its index")
        place, end = int(self._places[index]), int(self._ends[index])
        parts: list[bytes] = []
        held = 0
        while True:
            head = self.file.read(place, _PART.size)
            magic, word = _PART.unpack(head) if head else (0, 0)
            part, length = word >> 29, word & (1 << 29) - 1
            expected = (_MIDDLE, _LAST) if parts else (_WHOLE, _FIRST)
            if head is None or magic != MAGIC or part not in expected:
                raise DataError(f"{self.file.path}: record {key}: no record at byte {place:,}; is it the file's index?")
            data = self.file.read(place + _PART.size, length if most is None else min(length, most))
            if data is None or place + _PART.size + length > self.file.size:
                raise DataError(f"{self.file.path}: record {key}: cut off after {self.file.size - place:,} bytes; "
                                "is the file complete?")  # fmt: skip
            # Else many keys could share one large record, and all of it would be read for each.
            if place + _PART.size + length > end:
                raise DataError(f"{self.file.path}: record {key}: reaches beyond byte {end:,}, where another begins; "
                                "is it the file's index?")  # fmt: skip
            # With the magic number between parts, so that parts without bytes come to an end as well.
            held += len(data) + (4 if parts else 0)
            parts.append(data)
            if part in (_WHOLE, _LAST) or (most is not None and held >= most):
                return MAGIC.to_bytes(4, "little").join(parts)[:most]
            # Parts begin at multiples of four.
            place += _PART.size + length + -length % 4

    def _split(self, key: int, record: bytes) -> tuple[tuple[float, ...], bytes]:
        if len(record) < _HEADER.size:
            raise DataError(f"{self.file.path}: record {key}: {len(record)} bytes, fewer than its header has")
        count, label, _, _ = _HEADER.unpack_from(record)
        if count == 0:
            return (label,), record[_HEADER.size :]
        end = _HEADER.size + 4 * count
        if len(record) < end:
            raise DataError(f"{self.file.path}: record {key}: promises {count:,} labels, and ends before")
        return struct.unpack_from(f"<{count}f", record, _HEADER.size), record[end:]


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Keys, ascending, and the places of their records, each (R,) int64."""
    try:
        text = regular(path).read_text(encoding="ascii")
    except FileNotFoundError:
        raise RecipeError(f"no file '{path}', the index of the records beside it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    with warnings.catch_warnings():
        # Numpy warns of what is no number, and goes on.
        warnings.simplefilter("error")
        try:
            numbers = np.fromstring(text, np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            numbers = np.empty(0, np.int64)
    if not len(numbers) or len(numbers) % 2:
        raise DataError(f"{path}: expected lines of a key and a place, two whole numbers")
    keys, places = numbers.reshape(-1, 2).T
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if (keys[1:] == keys[:-1]).any():
        raise DataError(f"{path}: key {keys[:-1][keys[1:] == keys[:-1]][0]} stands there twice")
    places = places[order]
    by_place = np.argsort(places, kind="stable")
    shared = np.flatnonzero(np.diff(places[by_place]) == 0)
    if len(shared):
        first, second = keys[by_place[shared[0] : shared[0] + 2]]
        raise DataError(f"{path}: keys {first} and {second} have one place, {places[by_place[shared[0]]]:,}")
    return keys, places
