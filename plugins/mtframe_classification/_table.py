"""Reading a csv file strictly: every error names the file, the line, the column and the value."""

# Shapes: N rows, C columns or names.

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtframe.errors import DataError, RecipeError
from mtframe.paths import regular
from mtframe.registry import did_you_mean

# How many offenders a message names.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Table:
    """A csv file's cells, as text without spaces around them.

    Attributes:
        path: The file.
        columns: Names in its first line.
        rows: N rows of as many cells each.
        lines: N numbers of the lines they end on, from 1.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str, option: str) -> list[str]:
        """A column's N cells. Raises RecipeError, beginning with the option that names it, if there is none."""
        if name not in self.columns:
            hint = did_you_mean(name, self.columns)
            raise RecipeError(f"{option}: {self.path} has no column {name!r}; it has {', '.join(self.columns)}{hint}")
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def parsed(
        self, name: str, option: str, parse: Callable[[str], float | None], expected: Callable[[str], str]
    ) -> np.ndarray:
        """A column as numbers.

        Args:
            name: The column.
            option: The option that names it.
            parse: A cell's number; None if it is wrong.
            expected: What should have stood in place of a wrong cell, in words.

        Returns:
            (N,) float64.

        Raises:
            DataError: Cells are wrong; with the first few of them.
        """
        values = [(cell, parse(cell)) for cell in self.column(name, option)]
        self.refuse(
            [(line, cell) for line, (cell, value) in zip(self.lines, values, strict=True) if value is None],
            lambda line, cell: f"line {line}, column {name!r}: expected {expected(cell)}, got {cell!r}",
        )
        return np.array([value for _, value in values], np.float64)

    def refuse(self, problems: Sequence[tuple[int, str]], say: Callable[[int, str], str]) -> None:
        """Raises DataError with the first few problems, if there is any.

        Args:
            problems: Line and cell of each.
            say: What is wrong with one, in words; asked only of those that are named, as a suggestion takes long.
        """
        if not problems:
            return
        more = f"\n  and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise DataError(f"{self.path}: " + "\n  ".join(say(*problem) for problem in problems[:_NAMED]) + more)


def read_table(path: Path) -> Table:
    """Reads a csv file in UTF-8: commas between cells, double quotes around those that hold one, names first.

    Raises:
        RecipeError: There is no such file.
        DataError: It is no such file: not text, no rows, rows of unequal length, a column that stands twice.
    """
    rows, lines = [], []
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                # An empty line is no row.
                if row:
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except OSError as error:
        raise RecipeError(f"file: cannot read '{path}' ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not a csv file ({error})") from None
    if len(rows) < 2:
        raise DataError(f"{path}: expected a line of column names and a row for each image, found {len(rows)} lines")
    table = Table(path, tuple(rows[0]), rows[1:], lines[1:])
    if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise DataError(f"{path}: column {twice[0]!r} stands twice")
    width = len(table.columns)
    table.refuse(
        [(line, str(len(row))) for line, row in zip(table.lines, table.rows, strict=True) if len(row) != width],
        lambda line, found: f"line {line}: expected {width} cells as in the first line, got {found}",
    )
    return table


def flag(cell: str) -> float | None:
    """0 or 1; NaN for an empty cell."""
    return {"0": 0.0, "1": 1.0, "": math.nan}.get(cell)


def number(cell: str) -> float | None:
    """A finite number that a float32 holds; NaN for an empty cell."""
    if not cell:
        return math.nan
    try:
        # Python would take 1_000 for a number.
        value = float(cell.replace("_", "?"))
    except ValueError:
        return None
    return value if abs(value) <= float(np.finfo(np.float32).max) else None
