"""`gradients.csv` of a run: what the tasks' gradients were like, some rows for each measured step, and a summary."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median

from mtframe.files import appending
from mtframe.gradients import ALL, GradientEngine, Measurement, Row, names_by_stage
from mtframe.recipe import TrainOptions
from mtframe.run import is_step, read_table, write_text

from ._gradient_plot import plot_gradients
from ._log import LOG
from ._meetings import Meetings, check_comparable
from ._parts import TrainingParts

COLUMNS = ("step", "stage", "task", "other", "cosine", "norm", "weight", "effective_lr")
_NUMBERS = ("cosine", "norm", "weight", "effective_lr")
# What the summary says of a task, and the column that it is in.
_SUMMARISED = {"length": "norm", "effective learning rate": "effective_lr"}
# Of a cosine's magnitude, rounding included: sums of larger ones may have no value.
_MOST_COSINE = 1.01


class GradientLog:
    """Measures the tasks' gradients at every k-th step, for a file, observers and a summary.

    A resumed run gives the rows of one that never stopped.

    Args:
        engine: Gives the tasks' gradients.
        meetings: In which steps tasks meet.
        every: k.
        log_every: Steps between two calls of observers.
    """

    def __init__(self, engine: GradientEngine, meetings: Meetings, every: int, log_every: int) -> None:
        self.engine = engine
        self.meetings = meetings
        self.every = every
        self.log_every = log_every
        self._stages = names_by_stage(engine.model.sharing, engine.shared_parameters())
        self._file: Path | None = None
        self._latest: dict[str, float] = {}

    @classmethod
    def of(cls, parts: TrainingParts, options: TrainOptions) -> GradientLog | None:
        """The log that a recipe asks for, if any. Raises RecipeError if no two tasks can be compared."""
        if options.gradients_every is None:
            return None
        meetings = Meetings(parts.batches, options.accumulate)
        check_comparable(parts.engine, meetings, "train.gradients_every")
        return cls(parts.engine, meetings, options.gradients_every, options.log_every)

    def begin(self, file: Path, step: int) -> None:
        """Writes to this file from now on. Drops rows after the step that training goes on from."""
        self._file = file
        kept = [row for row in read_rows(file) if int(row["step"]) <= step]
        if file.is_file():
            write_text(file, _text(kept, header=True))
        logged = step // self.log_every * self.log_every
        self._latest = _values(row for row in kept[-_block(kept) :] if int(row["step"]) > logged)

    def measurement(self, step: int) -> Measurement | None:
        """What the step with this number, counted from 1, is measured with, if it is its turn."""
        due = self.meetings.due(step, self.every)
        return Measurement(self.engine.shared_parameters(), self._stages) if due else None

    def write(self, step: int, measurement: Measurement) -> None:
        """Adds the rows of a step that is done. Raises OSError, with the path."""
        rows = [{"step": str(step), **_written(row)} for row in measurement.rows()]
        self._latest = _values(rows)
        if self._file is None or not rows:
            return
        try:
            with appending(self._file) as file:
                file.write(_text(rows, header=file.tell() == 0))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._file)) from error

    def take(self) -> dict[str, float]:
        """For observers: values `cosine.A.B`, `gradient_norm.A`, `effective_lr.A` of all stages, if measured since."""
        values, self._latest = self._latest, {}
        return values

    def end(self) -> None:
        """Writes a summary into the log, and draws the rows into `plots/gradients.png` in the file's folder."""
        if self._file is not None:
            rows = read_rows(self._file)
            for line in summary(rows):
                LOG.info(line)
            plot_gradients(rows, self._file.parent / "plots" / "gradients.png")


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of `gradients.csv` that are complete; none if it is not there."""
    if not file.is_file():
        return []
    columns, rows = read_table(file)
    if tuple(columns) != COLUMNS:
        return []
    found = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    return [row for row in found if is_step(row["step"]) and all(_is_number(row[key], key) for key in _NUMBERS)]


def _is_number(text: str, column: str) -> bool:
    """Whether a cell is empty, or a number that can stand in its column."""
    try:
        value = float(text or 0)
    except ValueError:
        return False
    return abs(value) <= _MOST_COSINE if column == "cosine" else not math.isnan(value)


def summary(rows: list[dict[str, str]]) -> list[str]:
    """Lines for people: of each pair of tasks how often and where they pull apart, of each task its lengths."""
    lines = []
    whole = [row for row in rows if row["stage"] == ALL]
    for task, other in dict.fromkeys((row["task"], row["other"]) for row in whole if row["other"]):
        of_pair = [row for row in rows if (row["task"], row["other"]) == (task, other) and row["cosine"]]
        by_stage: dict[str, list[float]] = {}
        for row in of_pair:
            by_stage.setdefault(row["stage"], []).append(float(row["cosine"]))
        found = by_stage.pop(ALL, [])
        if found:
            half = (len(found) + 1) // 2
            stages = ", ".join(f"{stage} {fmean(values):+.3f}" for stage, values in by_stage.items())
            lines.append(
                f"gradients of {task} and {other} in {len(found)} measured steps: mean cosine {fmean(found):+.3f} "
                f"(by stage {stages}), opposed in {_opposed(found):.0%} (first half {_opposed(found[:half]):.0%}, "
                f"second {_opposed(found[half:] or found):.0%})"
            )
    for task in dict.fromkeys(row["task"] for row in whole):
        of_task = [row for row in whole if row["task"] == task]
        # Each by itself: one that could not be measured is empty beside the other.
        said = {name: [float(row[key]) for row in of_task if row[key]] for name, key in _SUMMARISED.items()}
        if any(said.values()):
            shown = ", ".join(f"median {name} {median(values):.3g}" for name, values in said.items() if values)
            lines.append(f"gradients of {task}: {shown}")
    return lines


def _written(row: Row) -> dict[str, str]:
    return {key: value if isinstance(value, str) else _number(value) for key, value in row.items()}


def _number(value: float) -> str:
    return "" if math.isnan(value) else format(value, ".6g")


def _text(rows: Iterable[dict[str, str]], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _block(rows: list[dict[str, str]]) -> int:
    """Number of rows of the last step."""
    return sum(row["step"] == rows[-1]["step"] for row in rows) if rows else 0


def _values(rows: Iterable[dict[str, str]]) -> dict[str, float]:
    values: dict[str, float] = {}
    for row in rows:
        if row["stage"] == ALL:
            named = {
                f"cosine.{row['task']}.{row.get('other', '')}": row.get("cosine"),
                f"gradient_norm.{row['task']}": row.get("norm"),
                f"effective_lr.{row['task']}": row.get("effective_lr"),
            }
            values |= {name: float(value) for name, value in named.items() if value}
    return values


def _opposed(cosines: list[float]) -> float:
    return sum(value < 0 for value in cosines) / len(cosines)
