"""What a run writes down while it trains: the rows of metrics.csv, log.txt and the loss curves."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtframe.run import write_text

LOG = logging.getLogger("mtframe")


class LossMeter:
    """Means of every task's loss terms over a logging interval, summed on the device without waiting for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Adds the terms of one pass, in which some tasks may take no part."""
        for task, named in terms.items():
            for name, value in named.items():
                key = f"{task}/{name}"
                self.sums[key] = self.sums[key] + value.double() if key in self.sums else value.double()
                self.counts[key] = self.counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call, by `task/term`."""
        means = {key: float(value) / self.counts[key] for key, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint in the middle of an interval."""
        return {"sums": {key: value.cpu() for key, value in self.sums.items()}, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Goes on in the middle of an interval."""
        self.sums = {key: value.to(device) for key, value in state["sums"].items()}
        self.counts = dict(state["counts"])


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Adds a row to a csv file, with a header if it is the first. Raises OSError, with the path.

    A column that it brings anew (a task that had not trained before) is empty in the rows above it.
    """
    try:
        known = _columns(path)
        columns = list(dict.fromkeys([*known, *row]))
        if known and columns != known:
            _widen(path, columns)
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            if not known:
                writer.writeheader()
            writer.writerow(row)
    except OSError as error:
        # A full disk shows when the file is flushed, where no name is known any more.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _columns(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file).fieldnames or ())


def _widen(path: Path, columns: list[str]) -> None:
    """Writes the file again with these columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    with path.open(newline="") as file:
        writer.writerows(csv.DictReader(file))
    write_text(path, text.getvalue())


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing: a line that cannot be written is no reason for a traceback; what fills the disk is told once."""

    def close(self) -> None:
        """Closes the file, even if what is left of it cannot be written."""
        with suppress(OSError):
            super().close()


def open_log(path: Path) -> logging.FileHandler:
    """Sends the framework's log to a run's log.txt as well; the caller removes the handler."""
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    return handler


def plot_losses(metrics_csv: Path, path: Path) -> None:
    """Draws a panel of loss terms a task over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with metrics_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    terms = [key for key in (rows[0] if rows else {}) if "/" in key]
    tasks = list(dict.fromkeys(key.split("/")[0] for key in terms))
    if not tasks:
        return
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(5 * len(tasks), 3.5), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for key in terms:
            if key.startswith(f"{task}/"):
                points = [(int(row["step"]), float(row[key])) for row in rows if row[key]]
                axis.plot(*zip(*points, strict=True), label=key)
        axis.set(title=task, xlabel="step", ylabel="loss")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
