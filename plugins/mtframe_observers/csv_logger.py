"""`metrics.csv`, with a row for each logging interval, and curves of the losses in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtframe.drawing import save_figure
from mtframe.files import appending, make_folder
from mtframe.hooks import hookimpl
from mtframe.palette import as_drawn
from mtframe.paths import regular
from mtframe.run import is_step, read_table, write_text

LOG = logging.getLogger("mtframe")

# How numbers are written; losses in full.
_FORMATS = {"epoch": ".3f", "lr": ".6g", "images_per_second": ".1f"}


class CsvLogger:
    """Writes `metrics.csv` into the run, a row every `train.log_every` steps, and draws the losses at the end.

    A run that goes on gives the rows of one that never stopped.
    """

    def __init__(self) -> None:
        self._run: Path | None = None

    @hookimpl
    def training_started(self, trainer: Any) -> None:
        """Drops rows after the checkpoint that training goes on from: they are computed again."""
        self._run = trainer.run.path
        file, every = self._run / "metrics.csv", trainer.options.log_every
        truncate(file, trainer.step)
        if missing := trainer.step // every - len(logged_steps(file, every)):
            LOG.warning("%s: %d rows of steps up to %d are missing or damaged", file, missing, trainer.step)

    @hookimpl
    def metrics_logged(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a row."""
        # A step that is made by hand, outside of a training, has no run to be written to.
        if self._run is None:
            return
        row = {name: format(value, _FORMATS.get(name, "")) for name, value in values.items()}
        append_row(self._run / "metrics.csv", {"step": step, **row})

    @hookimpl
    def training_ended(self) -> None:
        """Draws `plots/losses.png`."""
        if self._run is not None and (self._run / "metrics.csv").is_file():
            plot_losses(self._run / "metrics.csv", self._run / "plots" / "losses.png")


def truncate(path: Path, step: int) -> None:
    """Drops the rows after a step."""
    if not path.is_file():
        return
    columns, rows = read_table(path)
    if columns[:1] != ["step"]:
        columns, rows = [], []
    _write(path, columns, [row for row in rows if _is_whole(row) and int(row[0]) <= step])


def logged_steps(path: Path, every: int) -> set[int]:
    """The steps of rows that are whole, of those that are a multiple of `every`."""
    rows = read_table(path)[1] if path.is_file() else []
    return {step for row in rows if (step := int(row[0])) % every == 0}


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Adds a row to a csv file, with a header if it is the first. Raises OSError, with the path.

    A column that it brings anew (a task that had not trained before) is empty in the rows above it.
    """
    try:
        known = _columns(path)
        columns = list(dict.fromkeys([*known, *row]))
        if known and columns != known:
            rows = read_table(path)[1]
            _write(path, columns, [[*old, *[""] * (len(columns) - len(known))] for old in rows])
        with appending(path) as file:
            if not known:
                file.write(",".join(columns) + "\n")
            file.write(",".join(str(row.get(column, "")) for column in columns) + "\n")
    except OSError as error:
        # A full disk shows when the file is flushed, where no name is known any more.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _columns(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with regular(path).open(encoding="utf-8", errors="replace", newline="") as file:
        return [name for name in file.readline().rstrip("\r\n").split(",") if name]


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [columns, *rows] if columns else rows
    write_text(path, "".join(",".join(line) + "\n" for line in lines))


def _is_whole(row: Sequence[str]) -> bool:
    """Whether a row holds a step and numbers: a byte that was damaged may have left anything."""
    try:
        return is_step(row[0]) and all(value == "" or isinstance(float(value), float) for value in row)
    except ValueError:
        return False


def plot_losses(metrics_csv: Path, path: Path) -> None:
    """Draws each task's loss terms over the steps, in a panel of its own."""
    # Not pyplot: it keeps figures, and choosing its backend would choose it for a notebook too.
    from matplotlib.figure import Figure

    columns, lines = read_table(metrics_csv)
    rows = [dict(zip(columns, line, strict=True)) for line in lines]
    # A column may be empty: of a task whose rows a resumed training has dropped.
    terms = [key for key in columns if "/" in key and any(row[key] for row in rows)]
    tasks = list(dict.fromkeys(key.split("/")[0] for key in terms))
    if not tasks:
        return
    figure = Figure((5 * len(tasks), 3.5), layout="tight")
    axes = figure.subplots(1, len(tasks), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for key in terms:
            if key.startswith(f"{task}/"):
                points = [(int(row["step"]), float(row[key])) for row in rows if row[key]]
                axis.plot(*zip(*points, strict=True), label=as_drawn(key))
        axis.set(title=as_drawn(task), xlabel="step", ylabel="loss")
        axis.grid(alpha=0.3)
        axis.legend()
    make_folder(path.parent)
    save_figure(figure, path)
