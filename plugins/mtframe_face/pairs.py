"""The text files of Labeled Faces in the Wild: who trains, and which pairs are compared.

Formats as in the README that LFW is published with, sections 3c and 3d.
"""

# Shapes: P pairs.

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtframe.errors import DataError
from mtframe.omissions import Mistakes
from mtframe.paths import regular

FOLDS = 10
# The protocol of `pairs.txt`: ten sets of 300 matched and 300 mismatched pairs.
# What LFW's files are called: the people of training, and pairs by split.
PEOPLE = "peopleDevTrain.txt"
PAIRS = {"val": "pairsDevTest.txt", "test": "pairs.txt"}

VIEW_2 = "LFW View 2"
VIEW_2_PAIRS = 6000


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of images to compare.

    Attributes:
        first, second: (P,) int64, positions in the data set.
        same: (P,) bool, whether both show one person.
        fold: (P,) int64, the fold of a pair. Its threshold is chosen on the other folds.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray

    def __len__(self) -> int:
        return len(self.same)


@dataclass(frozen=True, slots=True)
class NamedPair:
    """One line of a pairs file: two images, each a person and a number from 1."""

    first: tuple[str, int]
    second: tuple[str, int]
    fold: int

    @property
    def same(self) -> bool:
        """Whether both images show one person."""
        return self.first[0] == self.second[0]


def read_pairs(path: Path, mistakes: Mistakes | None = None) -> list[NamedPair]:
    """Reads a pairs file: `pairs.txt` (View 2: `folds N`) or `pairsDevTest.txt` (View 1: `N`).

    A set is N matched pairs (`name n1 n2`), then N mismatched ones (`name1 n1 name2 n2`). View 1 is one set;
    it is cut into ten folds here, each the next tenth of the matched and of the mismatched pairs in the
    file's order: no pair helps to choose its own threshold, and the standard error means what it means in
    View 2.

    Args:
        path: The file.
        mistakes: Gets the pairs whose lines are not of that form, or name a path; None to raise of the first one.

    Raises:
        DataError: A line is wrong, unless that goes into `mistakes`, or the counts do not agree; with its number.
    """
    lines = _lines(path)
    number, header = next(lines, (1, []))
    counts = [_natural(word, path, number, "a count of pairs") for word in header]
    if len(counts) not in (1, 2):
        raise DataError(f"{path}:{number}: expected 'N' or 'folds N' on the first line, found {' '.join(header)!r}")
    sets, each = (1, counts[0]) if len(counts) == 1 else counts
    rows = list(lines)
    if len(rows) != sets * each * 2:
        raise DataError(
            f"{path}: the first line promises {sets} x {each} matched and as many mismatched pairs, "
            f"{sets * each * 2} lines; found {len(rows)}. Is the file complete?"
        )
    pairs = []
    for position, (line, words) in enumerate(rows):
        matched = position // each % 2 == 0
        fold = position // (2 * each) if sets > 1 else position % each * FOLDS // each
        try:
            pairs.append(_pair(words, matched, fold, path, line))
        except DataError as error:
            if mistakes is None:
                raise
            mistakes.add(line, str(error))
    return pairs


def read_people(path: Path, mistakes: Mistakes | None = None) -> dict[str, int]:
    """Reads `peopleDevTrain.txt` (`N`, then N lines) or `people.txt` (`sets`, then as many of those).

    Args:
        path: The file.
        mistakes: Gets the lines of people that are not `name count`; None to raise of the first one.

    Returns:
        The number of images that the file gives each person, by name, in the file's order.

    Raises:
        DataError: A line is wrong, unless that goes into `mistakes`, or a count of people does not agree; with the
            line's number.
    """
    people: dict[str, int] = {}
    rows = list(_lines(path))
    if not rows or len(rows[0][1]) != 1:
        raise DataError(f"{path}:1: expected the number of people (or of sets) alone on the first line")
    sets_follow = len(rows) > 1 and len(rows[1][1]) == 1
    position = 1 if sets_follow else 0
    while position < len(rows):
        line, words = rows[position]
        if len(words) != 1:
            raise DataError(f"{path}:{line}: expected a number of people, found {' '.join(words)!r}")
        count = _natural(words[0], path, line, "a number of people")
        block = rows[position + 1 : position + 1 + count]
        if len(block) != count:
            raise DataError(f"{path}:{line}: {count} people should follow, found {len(block)}. Is the file complete?")
        for line, words in block:
            try:
                name, images = _person(words, path, line)
                if name in people:
                    raise DataError(f"{path}:{line}: {name} is listed twice")
                people[name] = images
            except DataError as error:
                if mistakes is None:
                    raise
                mistakes.add(line, str(error))
        position += 1 + count
    return people


def _person(words: list[str], path: Path, line: int) -> tuple[str, int]:
    """A name and the number of images."""
    if len(words) != 2:
        raise DataError(f"{path}:{line}: expected 'name count', found {' '.join(words)!r}")
    return _name(words[0], path, line), _natural(words[1], path, line, "a number of images")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines that are not blank, split at tabs, or where there is none at white space."""
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        if words := [word.strip() for word in line.strip().split("\t" if "\t" in line.strip() else None)]:
            yield number, words


def _pair(words: list[str], matched: bool, fold: int, path: Path, line: int) -> NamedPair:
    form = "a matched pair 'name n1 n2'" if matched else "a mismatched pair 'name1 n1 name2 n2'"
    if len(words) != (3 if matched else 4):
        raise DataError(f"{path}:{line}: expected {form}, found {' '.join(words)!r}")
    if matched:
        words = [words[0], words[1], words[0], words[2]]
    first, second = (
        (_name(name, path, line), _natural(number, path, line, "an image's number"))
        for name, number in (words[:2], words[2:])
    )
    if not matched and first[0] == second[0]:
        raise DataError(f"{path}:{line}: a mismatched pair names {first[0]} twice")
    if first == second:
        raise DataError(f"{path}:{line}: an image is paired with itself")
    return NamedPair(first, second, fold)


def _name(word: str, path: Path, line: int) -> str:
    # Names become paths: one that leaves the folder of images must never be followed.
    if word in (".", "..") or any(mark in word for mark in "/\\:\0"):
        raise DataError(f"{path}:{line}: {word!r} is a path, not a person's name")
    return word


def _natural(word: str, path: Path, line: int, what: str) -> int:
    if not re.fullmatch("0{0,9}[1-9][0-9]{0,8}", word):
        raise DataError(f"{path}:{line}: expected {what} (1 or more), found {word!r}")
    return int(word)
