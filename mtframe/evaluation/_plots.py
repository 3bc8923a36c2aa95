"""Details of scores as files: a JSON file per task, and a picture of each curve, matrix and set of bars."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtframe.drawing import save_figure
from mtframe.errors import MtframeError
from mtframe.files import make_folder
from mtframe.palette import COLOURS, as_drawn, line_of
from mtframe.run import write_text

from ._details import Bars, Curves, Detail, Matrix
from ._evaluate import Evaluation

# More cells a side than these have no room for a number each, or for a name each.
_NUMBERED = 20
_NAMED = 80
# Inches: a picture of a thousand classes would take gigabytes.
_LONGEST = 25


def write_details(evaluation: Evaluation, task: str, out: Path) -> list[Path]:
    """Writes a task's scores with their details to `TASK.json`, and draws each detail in `TASK-NAME.png`.

    Args:
        evaluation: With details.
        task: Begins the files' names.
        out: Their folder; made if it is not there.

    Returns:
        The files.

    Raises:
        MtframeError: They cannot be written.
    """
    report = {
        "values": evaluation.values,
        "gaps": evaluation.gaps,
        "notes": evaluation.notes,
        "images": evaluation.images,
        "details": [{"kind": type(detail).__name__.lower(), **asdict(detail)} for detail in evaluation.details],
    }
    try:
        make_folder(out)
        files = [out / f"{task}.json"]
        write_text(files[0], json.dumps(finite(report), indent=1) + "\n")
        for detail in evaluation.details:
            files.append(out / f"{task}-{detail.name}.png")
            draw_detail(detail, files[-1])
    except OSError as error:
        raise MtframeError(f"--out: {out} could not be written ({error.strerror or error})") from error
    return files


def draw_detail(detail: Detail, path: Path) -> None:
    """Draws one detail into a PNG file."""
    # Not pyplot: it keeps figures, and chooses a window system.
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    with warnings.catch_warnings():
        # Of scripts that the font lacks, and of names too long for the layout: the json has them all.
        warnings.simplefilter("ignore")
        if isinstance(detail, Curves):
            _draw_curves(detail, figure, axes)
        elif isinstance(detail, Matrix):
            _draw_matrix(detail, figure, axes)
        else:
            _draw_bars(detail, figure, axes)
        axes.set_title(as_drawn(detail.name.replace("-", " ")))
    save_figure(figure, path)


def finite(value: Any) -> Any:
    """The same value with None, JSON's null, for each number that is not finite: JSON has neither NaN nor infinity.

    Args:
        value: Dictionaries, lists and tuples (which become lists) of plain values.
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw_curves(detail: Curves, figure: Any, axes: Any) -> None:
    figure.set_size_inches(6.4, 4.8)
    for number, (name, (xs, ys)) in enumerate(detail.lines.items()):
        colour, dashes = line_of(number)
        marker = "o" if len(xs) <= 20 else None
        axes.plot(xs, ys, dashes, color=colour, marker=marker, label=as_drawn(name))
    axes.set(xlabel=detail.x, ylabel=detail.y)
    axes.grid(alpha=0.3)
    if len(detail.lines) > 10:
        figure.set_size_inches(8.8, 4.8)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
    elif len(detail.lines) > 1:
        axes.legend()


def _draw_matrix(detail: Matrix, figure: Any, axes: Any) -> None:
    """Cells are coloured by their part of the row, so that rare rows are seen as well."""
    rows, columns = len(detail.row_labels), len(detail.column_labels)
    side = min(max(4.8, 0.28 * max(rows, columns) + 2), _LONGEST)
    figure.set_size_inches(side * 1.15, side)
    parts = [[value / (sum(row) or 1) for value in row] for row in detail.values]
    cells = axes.imshow(parts, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for count, labels, mark, turn in (
        (columns, detail.column_labels, axes.set_xticks, 90),
        (rows, detail.row_labels, axes.set_yticks, 0),
    ):
        shown = range(0, count, -(-count // _NAMED))
        mark(shown, [as_drawn(labels[place]) for place in shown], rotation=turn)
    axes.set(xlabel=detail.columns, ylabel=detail.rows)
    if max(rows, columns) <= _NUMBERED:
        for y, row in enumerate(detail.values):
            for x, value in enumerate(row):
                ink = "black" if parts[y][x] > 0.5 else "white"
                axes.text(x, y, f"{value:g}", ha="center", va="center", color=ink, fontsize="small")
    figure.colorbar(cells, ax=axes, label="part of the row")


def _draw_bars(detail: Bars, figure: Any, axes: Any) -> None:
    names, values = [as_drawn(name) for name in detail.values], list(detail.values.values())
    figure.set_size_inches(6.4, min(max(2.4, 0.22 * len(names) + 1.2), 4 * _LONGEST))
    axes.barh(names, [0 if math.isnan(value) else value for value in values], color=COLOURS[5])
    for place, value in enumerate(values):
        text = "n/a" if math.isnan(value) else f"{value:.3g}"
        axes.annotate(text, (max(0.0, value) if value == value else 0, place), xytext=(3, 0),
                      textcoords="offset points", va="center", fontsize="small")  # fmt: skip
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel(detail.unit)
    axes.grid(axis="x", alpha=0.3)
