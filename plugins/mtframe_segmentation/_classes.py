"""What the numbers in mask files mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtframe.errors import DataError, RecipeError
from mtframe.paths import regular
from mtframe.yaml import MOST_BYTES, parse_yaml

from .masks import UNKNOWN

# A file's numbers have at most 16 bits.
_NUMBERS = 2**16

# In the table from numbers to classes: neither a class nor unknown.
_STRAY = -1

# Under which keys a yaml may have its classes.
_KEYS = ("classes", "names")


@dataclass(frozen=True, slots=True)
class ClassTable:
    """From a mask file's numbers to classes.

    Attributes:
        names: The classes, in the order of the first number that means each.
        table: (65536,) int16: by number the class, 255 where it means unknown, -1 where it means nothing.
    """

    names: tuple[str, ...]
    table: Tensor

    @classmethod
    def read(cls, root: Path, classes: str | Sequence[str], unknown: Sequence[int]) -> ClassTable:
        """Takes numbers that have one name for one class; those in `unknown` are none, whatever they are called.

        Args:
            root: What a file is relative to.
            classes: Names of 0, 1, ...; or a file of names, a line each (`.txt`), or of numbers with names (`.yaml`).
            unknown: Numbers of pixels whose class is not known.

        Raises:
            RecipeError: There is no such file, or a number is out of its range.
            DataError: The file is not what it should be, or names no class or too many.
        """
        named = _file(root / classes) if isinstance(classes, str) else dict(enumerate(classes))
        if wrong := [number for number in (*unknown, *named) if not 0 <= number < _NUMBERS]:
            raise RecipeError(f"classes and unknown: expected numbers of 0 to {_NUMBERS - 1}, got {wrong[0]}")
        known = {number: name for number, name in sorted(named.items()) if number not in unknown}
        names = tuple(dict.fromkeys(known.values()))
        if not 1 <= len(names) <= UNKNOWN:
            raise DataError(f"classes: expected 1 to {UNKNOWN} besides those that are unknown, got {len(names)}")
        table = torch.full((_NUMBERS,), _STRAY, dtype=torch.int16)
        for number, name in known.items():
            table[number] = names.index(name)
        table[list(unknown)] = UNKNOWN
        return cls(names, table)

    def classes_of(self, numbers: Tensor) -> Tensor:
        """(H, W) uint8 classes of (H, W) numbers; raises ValueError for numbers that mean nothing."""
        mask = self.table[numbers.int()]
        if (mask == _STRAY).any():
            stray = numbers[mask == _STRAY].unique().tolist()
            row, column = (mask == _STRAY).nonzero()[0].tolist()
            listed = f"{', '.join(map(str, stray[:5]))}{', ...' if len(stray) > 5 else ''}"
            raise ValueError(
                f"has numbers that mean nothing: {listed}, first in row {row}, column {column}. Name them in the "
                "option 'classes', or in 'unknown'"
            )
        return mask.to(torch.uint8)


def _file(path: Path) -> dict[int, str]:
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    try:
        text = regular(path, MOST_BYTES if is_yaml else None).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise RecipeError(
            f"classes: cannot read '{path}' ({error.strerror or error}); expected a file of names or of numbers with "
            "names, or a list of names"
        ) from None
    if not is_yaml:
        # Not without empty lines: a class's number is that of its line.
        return _checked(path, dict(enumerate(line.strip() for line in text.rstrip().splitlines())))
    content = parse_yaml(text, str(path), DataError)
    if isinstance(content, Mapping):
        content = next((content[key] for key in _KEYS if key in content), content)
    return _checked(path, dict(enumerate(content)) if isinstance(content, list) else content)


def _checked(path: Path, named: Any) -> dict[int, str]:
    if not isinstance(named, dict) or not named:
        raise DataError(f"{path}: expected numbers with names, or a list of names, perhaps under 'classes'")
    for number, name in named.items():
        # Unquoted, `no` is false and `~` nothing.
        if isinstance(number, bool) or not isinstance(number, int):
            raise DataError(f"{path}: expected whole numbers before the names, got {number!r}")
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: expected a name for class {number}, got {name!r}; quote it if it is one")
    return named
