"""A picture of what was surveyed: a row for each task, with its classes, sizes, places."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtframe.drawing import save_figure
from mtframe.evaluation import Bars, Detail, Matrix
from mtframe.files import make_folder
from mtframe.palette import COLOURS, as_drawn, line_of

from ._survey import TaskSurvey

# Bars that have room beside each other; of more, the longest.
_MOST = 24

# Inches of a panel.
_WIDTH, _HEIGHT = 4.6, 4.2


def draw_surveys(surveys: Sequence[TaskSurvey], path: Path) -> bool:
    """Draws what the training data of each task holds into a PNG file; its folder is made.

    Returns:
        Whether there was anything to draw.

    Raises:
        OSError: It cannot be written.
    """
    rows = [(survey, pictures) for survey in surveys if (pictures := _pictures(survey))]
    if not rows:
        return False
    # Not pyplot: it keeps figures, and chooses a window system.
    from matplotlib.figure import Figure

    columns = max(len(pictures) for _, pictures in rows)
    figure = Figure((_WIDTH * columns, _HEIGHT * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    with warnings.catch_warnings():
        # Of scripts that the font lacks, and of names too long for the layout.
        warnings.simplefilter("ignore")
        for (survey, pictures), axes in zip(rows, grid, strict=True):
            for place, panel in enumerate(axes):
                if place < len(pictures):
                    _draw(pictures[place], figure, panel)
                else:
                    panel.set_axis_off()
            axes[0].set_title(as_drawn(f"{survey.name}: {axes[0].get_title()}"), fontsize="medium")
    make_folder(path.parent)
    save_figure(figure, path)
    return True


def _pictures(survey: TaskSurvey) -> tuple[Detail, ...]:
    said = survey.splits["train"].survey if "train" in survey.splits else None
    return () if said is None else said.pictures


def _draw(detail: Detail, figure: Any, axes: Any) -> None:
    title = detail.name.replace("-", " ")
    if isinstance(detail, Bars):
        values = list(detail.values.items())
        if len(values) > _MOST:
            values = sorted(values, key=lambda pair: -pair[1])[:_MOST]
            title = f"{title} (the {_MOST} most frequent of {len(detail.values)})"
        _draw_bars(values, detail.unit, axes)
    elif isinstance(detail, Matrix):
        cells = axes.imshow(detail.values, cmap="cividis", aspect="auto", vmin=0)
        for mark, labels in ((axes.set_xticks, detail.column_labels), (axes.set_yticks, detail.row_labels)):
            named = [place for place, label in enumerate(labels) if label]
            mark(named, [as_drawn(labels[place]) for place in named])
        axes.set(xlabel=detail.columns, ylabel=detail.rows)
        figure.colorbar(cells, ax=axes)
    else:
        for number, (name, (xs, ys)) in enumerate(detail.lines.items()):
            colour, dashes = line_of(number)
            axes.plot(xs, ys, dashes, color=colour, label=as_drawn(name))
        axes.set(xlabel=detail.x, ylabel=detail.y)
    axes.set_title(as_drawn(title), fontsize="medium")


def _draw_bars(values: Sequence[tuple[str, float]], unit: str, axes: Any) -> None:
    places = range(len(values))
    axes.barh(places, [value for _, value in values], color=COLOURS[5])
    axes.set_yticks(places, [as_drawn(name) for name, _ in values], fontsize="small")
    for place, (_, value) in enumerate(values):
        axes.annotate(f"{value:g}", (value, place), xytext=(3, 0), textcoords="offset points", va="center",
                      fontsize="x-small")  # fmt: skip
    axes.invert_yaxis()
    axes.margins(x=0.15, y=0.01)
    axes.set_xlabel(unit)
