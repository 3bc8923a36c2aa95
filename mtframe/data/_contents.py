"""Which files of several splits hold the same bytes, so that an image under another name is recognised."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

import numpy as np

# Files of so many bytes at most are read as a whole for their mark.
_SMALL = 1 << 16

# Threads that read: a disk has many requests in its queue, and hashing leaves the interpreter to others.
_READERS = 8

Split = TypeVar("Split", bound=Hashable)

# Bytes at the middle and at the end of a file that are compared before all of it; beginnings are headers, and alike.
_PEEK = 4096

# Bytes that are read as whole files, in all. Beyond that, as of a large training set whose copy is another split, what
# agrees in size and peeks is taken for the same.
_MOST = 4 << 30


@dataclass(frozen=True, slots=True)
class _File(Generic[Split]):
    """A file that may be another one's copy.

    Attributes:
        split: Where it stands.
        place: Its number there.
        path: Where it is.
        size: Bytes.
        identity: The same of two paths that lead to one file.
    """

    split: Split
    place: int
    path: str
    size: int
    identity: tuple[int, int]


def same_contents(splits: Mapping[Split, Sequence[str | os.PathLike[str]]]) -> list[dict[Split, list[int]]]:
    """Files of the same bytes that stand in more than one split, whatever their names.

    A file is opened only if another split has one of the same size, and read as a whole only if the two agree in a few
    kilobytes; 4 GiB are read so at most. Paths that lead to one file (links) are not read. An image that was encoded
    anew is another file.

    Args:
        splits: Paths by split. What is empty, no regular file or cannot be read is like no other.

    Returns:
        For each content that several splits have: by split, the places of the files with it, rising. In the order of
        the first places.
    """
    files = [
        file
        for split, paths in splits.items()
        for place, path in enumerate(paths)
        if (file := _file(split, place, os.fspath(path))) is not None
    ]
    alike = [ends for sizes in _parts(files, _size) for ends in _parts(sizes, _peeks)]
    groups: list[list[_File[Split]]] = []
    left = _MOST
    for group in alike:
        left -= sum(file.size for file in group)
        groups += _parts(group, _whole) if left >= 0 else [group]
    found = []
    order = {file: number for number, file in enumerate(files)}
    for group in sorted(groups, key=lambda group: order[group[0]]):
        places: dict[Split, list[int]] = {}
        for file in group:
            places.setdefault(file.split, []).append(file.place)
        found.append(places)
    return found


def content_marks(paths: Sequence[str | os.PathLike[str]]) -> np.ndarray:
    """A number for what is in each file, by which it is recognised later, under any name: 8 bytes of BLAKE2b.

    Of the size, and of all of a small file or, of one above 64 KiB, of a few kilobytes at its middle and end, as
    `same_contents` first compares: 100,000 photographs take seconds once the disk's directory has been read.

    Returns:
        (I,) int64; 0 for what is empty, no regular file or cannot be read.
    """
    names = [os.fspath(path) for path in paths]
    with ThreadPoolExecutor(_READERS) as pool:
        marks = list(pool.map(_mark, names, chunksize=64))
    return np.array(marks, dtype=np.int64)


def _mark(path: str) -> int:
    file = _file("", 0, path)
    if file is None:
        return 0
    found = _read(path) if file.size <= _SMALL else _peeks(file)
    if found is None:
        return 0
    digest = blake2b(file.size.to_bytes(8, "little") + found, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as opened:
            return opened.read(_SMALL)
    except OSError:
        return None


def _parts(group: Sequence[_File[Split]], key: Callable[[_File[Split]], object]) -> Iterator[list[_File[Split]]]:
    """The files of a group with equal keys that stand in several splits; None is no key."""
    parts: dict[object, list[_File[Split]]] = {}
    one = len({file.identity for file in group}) == 1
    for file in group:
        if (value := "" if one else key(file)) is not None:
            parts.setdefault(value, []).append(file)
    yield from (part for part in parts.values() if len({file.split for file in part}) > 1)


def _file(split: Split, place: int, path: str) -> _File[Split] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return None
    return _File(split, place, path, status.st_size, (status.st_dev, status.st_ino))


def _size(file: _File[Split]) -> object:
    return file.size


def _peeks(file: _File[Split]) -> bytes | None:
    """A few kilobytes at the middle and at the end; None if it cannot be read."""
    try:
        with open(file.path, "rb") as opened:
            opened.seek(file.size // 2)
            middle = opened.read(_PEEK)
            opened.seek(max(0, file.size - _PEEK))
            return blake2b(middle + opened.read(_PEEK), digest_size=16).digest()
    except OSError:
        return None


def _whole(file: _File[Split]) -> object:
    """A digest of all of it; None if it cannot be read."""
    try:
        with open(file.path, "rb") as opened:
            return hashlib.file_digest(opened, "blake2b").digest()
    except OSError:
        return None
