"""Reading a csv file strictly: every mistake names the file, the line, the column and the value, and costs its row."""

# Shapes: N rows, C columns or names.

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mtframe.errors import DataError, RecipeError
from mtframe.omissions import Mistakes
from mtframe.paths import regular
from mtframe.registry import did_you_mean


@dataclass(frozen=True, slots=True)
class Table:
    """A csv file's cells, as text without spaces around them.

    Attributes:
        path: The file.
        columns: Names in its first line.
        rows: N rows of as many cells each.
        lines: N numbers of the lines they end on, from 1.
        mistakes: What is wrong, by line: of rows, and of lines that are none.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    mistakes: Mistakes

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: the rows with which nothing is wrong so far."""
        return np.array([line not in self.mistakes for line in self.lines], bool)

    def excused(self, bad_labels: float) -> tuple[str, ...]:
        """What to say of the rows that are wrong.

        Args:
            bad_labels: Part of all rows that may be.

        Raises:
            DataError: More are; with the first few of them.
        """
        whole = int(self.right.sum()) + len(self.mistakes)
        return self.mistakes.excused(whole, bad_labels, str(self.path), "rows", "they are wrong")

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
            (N,) float64; NaN in a row that is wrong.
        """
        values = [(cell, parse(cell)) for cell in self.column(name, option)]
        self.wrong(
            [(line, cell) for line, (cell, value) in zip(self.lines, values, strict=True) if value is None],
            lambda line, cell: f"line {line}, column {name!r}: expected {expected(cell)}, got {cell!r}",
        )
        return np.array([math.nan if value is None else value for _, value in values], np.float64)

    def wrong(self, problems: Sequence[tuple[int, str]], say: Callable[[int, str], str]) -> None:
        """Adds mistakes.

        Args:
            problems: Line and cell of each.
            say: What is wrong with one, in words.
        """
        for line, cell in problems:
            self.mistakes.add(line, partial(say, line, cell))


def read_table(path: Path) -> Table:
    """Reads a csv file in UTF-8: commas between cells, double quotes around those that hold one, names first.

    Raises:
        RecipeError: There is no such file.
        DataError: It is no such file: not text, no rows, a column that stands twice.
    """
    rows, lines, mistakes = [], [], Mistakes()
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            while True:
                before = reader.line_num
                try:
                    row = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    # Of an open quote, all lines that it takes in.
                    for line in range(before + 1, max(reader.line_num, before + 1)):
                        mistakes.add(line)
                    mistakes.add(reader.line_num, f"line {reader.line_num}: not a csv file ({error})")
                    continue
                # An empty line is no row.
                if row:
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except OSError as error:
        raise RecipeError(f"file: cannot read '{path}' ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8") from None
    if not rows or (lines[0] > 1 and 1 in mistakes) or len(rows) + len(mistakes) < 2:
        wrong = f" ({mistakes.lines()[0]})" if mistakes else ""
        raise DataError(
            f"{path}: expected a line of column names and a row for each image, found {len(rows)} lines{wrong}"
        )
    columns = tuple(rows[0])
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise DataError(f"{path}: column {twice[0]!r} stands twice")
    whole = [(row, line) for row, line in zip(rows[1:], lines[1:], strict=True) if len(row) == len(columns)]
    table = Table(path, columns, [row for row, _ in whole], [line for _, line in whole], mistakes)
    table.wrong(
        [(line, str(len(row))) for row, line in zip(rows[1:], lines[1:], strict=True) if len(row) != len(columns)],
        lambda line, found: f"line {line}: expected {len(columns)} cells as in the first line, got {found}",
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
