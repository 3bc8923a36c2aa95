"""Images listed in a csv file, with one label, several labels or numbers beside each."""

# Shapes: N images, C classes or numbers.

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from mtframe.data import DataInfo
from mtframe.errors import DataError, RecipeError
from mtframe.folders import SPLIT_NAMES, held_out
from mtframe.omissions import BAD_LABELS, check_part
from mtframe.paths import stays_inside
from mtframe.registry import did_you_mean

from ._images import SPLITS, LabelledDataset, LabelledImages, check_options, check_root
from ._table import Table, flag, number, read_table
from .synthesis import synthesize_table

TABLE = "labels.csv"

_IMAGE_COLUMNS = ("file", "image")

# Bytes that labels may take in memory: so many in any case, and so many for each byte of the file.
_ALWAYS, _MOST_RATIO = 1 << 28, 200


class CsvImages(LabelledDataset):
    """Images and labels from a csv file. An empty cell is unknown: neither learned from nor scored.

    ```
    file,split,scene,sun,horizon
    images/0001.jpg,train,coast,1,0.42
    images/0002.jpg,val,forest,,0.61
    ```

    Exactly one of `label`, `labels` and `values` says what is to be learned. The optional column `split` holds
    `train`, `val` or `test`, or another name of these such as `validation`; where no row says `val`, a part of the
    training rows validates, chosen by a digest of the path: always the same ones. Rows with nothing known are left out,
    and so are rows in which something is wrong, as long as these are few (`bad_labels`).

    Args:
        split: `train`, `val` or `test`.
        root: Folder that the images' paths are relative to.
        file: The csv file, relative to the root unless it is absolute.
        image: Column with the images' paths; null for `file` or `image`.
        label: Column with the name of an image's class: one of several.
        labels: Any of several: columns of 0 and 1, or one column with names between separators, where a lone
            separator says that none applies.
        values: Columns of numbers.
        separator: What stands between the names in the column `labels`.
        classes: The classes and their order, for names in cells. By default those of the training rows, sorted.
        val_part: Part of the training rows that validates where no row says `val`.
        bad_labels: Part of the file's rows that may be left out, since something is wrong in them.

    Attributes:
        info: Names of the classes, or of the numbers; its `target` is `label`, `labels` or `value`.
        notes: What was left out, in sentences.
        omitted: How much was left out, by reason.

    Raises:
        RecipeError: An option names nothing there, or there is no such split.
        DataError: The file is not what it should be, or more rows are wrong than `bad_labels` allows: with line, column
            and value.
    """

    target: ClassVar[tuple[str, ...]] = ("label", "labels", "value")
    splits: ClassVar[tuple[str, ...]] = SPLITS
    synthesize = staticmethod(synthesize_table)
    # What the conformance kit reads of the synthetic table, by kind of target.
    examples: ClassVar[dict[str, dict[str, Any]]] = {
        "label": {"label": "scene"},
        "labels": {"labels": ["sun", "birds", "fence"]},
        "value": {"values": ["horizon", "tilt"]},
    }

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        file: str = TABLE,
        image: str | None = None,
        label: str | None = None,
        labels: str | tuple[str, ...] | None = None,
        values: tuple[str, ...] | None = None,
        separator: str = ";",
        classes: tuple[str, ...] | None = None,
        val_part: float = 0.2,
        bad_labels: float = BAD_LABELS,
    ) -> None:
        check_options("csv", split, val_part, classes)
        check_part(bad_labels=bad_labels)
        _check_columns(label, labels, values, separator, classes)
        self.root, self.split = Path(root), split
        check_root("csv", self.root)
        table = read_table(self.root / file)
        files, twice = _files(table, image)
        splits = _splits(table)
        # Before classes are taken from what is left.
        table.excused(bad_labels)
        learned = (splits == "train") & table.right
        if label is not None:
            self.info, targets = _read_label(table, label, learned, classes)
        elif isinstance(labels, str):
            self.info, targets = _read_names(table, labels, separator, learned, classes)
        else:
            self.info, targets = _read_columns(table, labels, values)
        said = table.excused(bad_labels)
        right = table.right & ~twice
        here = splits == split
        if not (splits == "val").any():
            train = np.flatnonzero((splits == "train") & right)
            groups = targets[train] if targets.ndim == 1 else np.zeros(len(train), np.int64)
            splits[train[held_out([files[row] for row in train], val_part, groups.tolist())]] = "val"
        labelled, empty = self._chosen(table, files, targets, (splits == split) & right)
        # What has no row, or names no split, is told where training is.
        stray = len(table.mistakes) - int((~table.right).sum()) if split == "train" else 0
        counts = {
            "rows without a label": empty,
            "rows that are wrong": int((here & ~table.right).sum()) + stray,
            "rows that stand twice": int((here & twice & table.right).sum()),
        }
        self.omitted = {reason: count for reason, count in counts.items() if count}
        self.notes = said if "rows that are wrong" in self.omitted else ()
        super().__init__(labelled, self.info, train=split == "train")

    def _chosen(
        self, table: Table, files: list[str], targets: np.ndarray, rows: np.ndarray
    ) -> tuple[LabelledImages, int]:
        """The labelled rows, and how many others there are."""
        if not rows.any():
            raise RecipeError(f"split: no row of {table.path} is in {self.split!r}")
        known = targets >= 0 if targets.ndim == 1 else ~np.isnan(targets).all(1)
        kept = rows & known
        if not kept.any():
            raise DataError(f"{table.path}: not one row of split {self.split!r} has a label")
        chosen = LabelledImages(
            self.root, self.info.target, [file for file, keep in zip(files, kept, strict=True) if keep], targets[kept]
        )
        return chosen, int((rows & ~known).sum())

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """`{}` for a folder with a file `labels.csv`, another file for a csv file itself; see `Recognises`."""
        place = Path(root)
        if os.path.isfile(place / TABLE):
            return {}
        if place.suffix.lower() == ".csv" and os.path.isfile(place):
            return {"root": str(place.parent), "file": place.name}
        return None


def _check_columns(
    label: str | None,
    labels: str | tuple[str, ...] | None,
    values: tuple[str, ...] | None,
    separator: str,
    classes: tuple[str, ...] | None,
) -> None:
    given = {"label": label, "labels": labels, "values": values}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise RecipeError(
            f"expected one of label=COLUMN, labels=[COLUMN, ...], labels=COLUMN and values=[COLUMN, ...], "
            f"got {' and '.join(named) or 'none of them'}"
        )
    columns = given[named[0]]
    if isinstance(columns, tuple):
        if not columns or len(set(columns)) < len(columns):
            raise RecipeError(f"{named[0]}: expected columns, each once, got {list(columns)}")
        if classes is not None:
            raise RecipeError(f"classes: {named[0]} are named by their columns")
    if not separator.strip():
        raise RecipeError(f"separator: expected a character that is no space, got {separator!r}")


def _files(table: Table, image: str | None) -> tuple[list[str], np.ndarray]:
    """The images' paths, plain; and (N,) bool, the rows that say the same as one before them.

    Of an image of which two rows say different things, both are wrong: nobody knows which one is not.
    """
    if image is None:
        image = next((name for name in _IMAGE_COLUMNS if name in table.columns), _IMAGE_COLUMNS[0])
    cells = table.column(image, "image")
    table.wrong(
        [(line, cell) for line, cell in zip(table.lines, cells, strict=True) if not stays_inside(cell)],
        lambda line, cell: (
            f"line {line}, column {image!r}: expected a path that stays in the root, without '..', got {cell!r}"
        ),
    )
    files = [PurePosixPath(cell).as_posix() for cell in cells]
    place = table.columns.index(image)
    said = [(file, *row[:place], *row[place + 1 :]) for file, row in zip(files, table.rows, strict=True)]
    first: dict[str, int] = {}
    twice = np.zeros(len(files), bool)
    for row, file in enumerate(files):
        other = first.setdefault(file, row)
        twice[row] = other != row and said[other] == said[row]
        if other != row and not twice[row]:
            line, before = table.lines[row], table.lines[other]
            table.mistakes.add(line, f"line {line}, column {image!r}: {file!r} stands in line {before} too")
            table.mistakes.add(before)
    return files, twice


def _splits(table: Table) -> np.ndarray:
    """(N,) text, by any name of a split; `train` for all where the file says nothing, and where it says no split."""
    if "split" not in table.columns:
        return np.full(len(table.rows), "train")
    places = {name: float(SPLITS.index(split)) for split, called in SPLIT_NAMES.items() for name in called}
    codes = table.parsed("split", "split", lambda cell: places.get(cell.lower()), lambda _: "train, val or test")
    return np.array(SPLITS)[np.nan_to_num(codes, nan=SPLITS.index("train")).astype(int)]


def _read_label(
    table: Table, column: str, train: np.ndarray, classes: tuple[str, ...] | None
) -> tuple[DataInfo, np.ndarray]:
    """One class each: (N,) int64, -1 where unknown."""
    cells = table.column(column, "label")
    known = _class_names(table, column, [[cell] if cell else [] for cell in cells], train, classes, least=2)
    codes = {name: float(code) for code, name in enumerate(known)} | {"": -1.0}
    labels = table.parsed(column, "label", codes.get, lambda cell: _one_of(cell, known))
    return DataInfo("label", known), np.nan_to_num(labels, nan=-1.0).astype(np.int64)


def _read_names(
    table: Table, column: str, separator: str, train: np.ndarray, classes: tuple[str, ...] | None
) -> tuple[DataInfo, np.ndarray]:
    """Any of several, by their names in one cell: (N, C) float32."""
    cells = table.column(column, "labels")
    names = [[name for part in cell.split(separator) if (name := part.strip())] for cell in cells]
    known = _class_names(table, column, names, train, classes, least=1)
    codes = {name: code for code, name in enumerate(known)}
    table.wrong(
        [(line, name) for line, row in zip(table.lines, names, strict=True) for name in row if name not in codes],
        lambda line, name: f"line {line}, column {column!r}: expected {_one_of(name, known)}, got {name!r}",
    )
    _check_size(table, len(known))
    labels = np.zeros((len(cells), len(known)), np.float32)
    for row, (cell, present) in enumerate(zip(cells, names, strict=True)):
        labels[row, [codes[name] for name in present if name in codes]] = 1
        if not cell:
            labels[row] = np.nan
    return DataInfo("labels", known), labels


def _check_size(table: Table, classes: int) -> None:
    """Raises DataError where a small file would become a large array, as each row has a number for each class."""
    needed = 4 * len(table.rows) * classes
    limit = max(_ALWAYS, _MOST_RATIO * table.path.stat().st_size)
    if needed > limit:
        raise DataError(
            f"{table.path}: {len(table.rows):,} rows and {classes:,} classes would take {needed:,} bytes, more than "
            f"the limit of {limit:,} for a file of its size. Leave out rare names"
        )


def _read_columns(
    table: Table, labels: tuple[str, ...] | None, values: tuple[str, ...] | None
) -> tuple[DataInfo, np.ndarray]:
    """Columns of 0 and 1, or of numbers: (N, C) float32, NaN where unknown."""
    if labels is not None:
        read = [table.parsed(name, "labels", flag, lambda _: "0, 1 or nothing") for name in labels]
        return DataInfo("labels", labels), np.stack(read, 1).astype(np.float32)
    assert values is not None
    read = [table.parsed(name, "values", number, lambda _: "a number or nothing") for name in values]
    return DataInfo("value", values), np.stack(read, 1).astype(np.float32)


def _class_names(
    table: Table,
    column: str,
    names: list[list[str]],
    train: np.ndarray,
    classes: tuple[str, ...] | None,
    *,
    least: int,
) -> tuple[str, ...]:
    """The classes: those of the option, or those that stand in the training rows, sorted."""
    found = {name for row, learned in zip(names, train, strict=True) if learned for name in row}
    known = classes or tuple(sorted(found))
    if len(known) < least:
        raise DataError(f"{table.path}: column {column!r}: the training rows name {len(known)} classes; "
                        f"expected {least} or more")  # fmt: skip
    return known


def _one_of(name: str, known: Sequence[str]) -> str:
    hint = did_you_mean(name, known).removeprefix("; ")
    return f"one of the {len(known)} classes of the training rows or of 'classes'" + (f" ({hint})" if hint else "")
