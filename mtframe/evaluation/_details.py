"""What a metric reports that does not fit into a number: curves, matrices and bars, without a way to draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines in one plot.

    Attributes:
        name: A word for files and headings, such as `precision-recall`.
        x, y: What the axes mean.
        lines: Points (xs, ys) of each line, by its name.
    """

    name: str
    x: str
    y: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A table of numbers, such as a confusion matrix.

    Attributes:
        name: A word for files and headings.
        rows, columns: What rows and columns are, e.g. `true class`.
        row_labels, column_labels: Their names.
        values: A list of numbers a row.
    """

    name: str
    rows: str
    columns: str
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Bars:
    """A number each for several things, such as the average precision of each class.

    Attributes:
        name: A word for files and headings.
        unit: What the numbers are.
        values: Number by thing; NaN where there is none.
    """

    name: str
    unit: str
    values: Mapping[str, float]


Detail = Curves | Matrix | Bars
