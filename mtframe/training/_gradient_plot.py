"""A picture of `gradients.csv`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtframe.drawing import save_figure
from mtframe.files import make_folder
from mtframe.gradients import ALL
from mtframe.palette import as_drawn, line_of

# Measured steps that a moving mean is over.
_WINDOW = 10

_Points = tuple[list[int], list[float]]


def plot_gradients(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Draws cosines over the steps, how often tasks are opposed, cosines by stage, and effective learning rates.

    Args:
        rows: As `read_rows` gives them.
        path: The picture, a PNG file; its folder is made.
    """
    # Not pyplot: it keeps figures, and chooses a window system.
    from matplotlib.figure import Figure

    cosines = _by_name([row for row in rows if row["stage"] == ALL], "cosine")
    if not cosines:
        return
    figure = Figure((11, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw(axes[0, 0], {name: _smooth(points) for name, points in cosines.items()},
          f"cosine of the gradients, mean of {_WINDOW} measured steps", at=0)  # fmt: skip
    opposed = {name: (steps, [float(v < 0) for v in values]) for name, (steps, values) in cosines.items()}
    # In the colours of the first one's legend.
    _draw(axes[0, 1], {name: _smooth(points) for name, points in opposed.items()},
          f"share of {_WINDOW} measured steps in which they are opposed", at=0.5, legend=False)  # fmt: skip
    axes[0, 0].set_ylim(-1.06, 1.06)
    axes[0, 1].set_ylim(-0.03, 1.03)
    _draw_stages(figure, axes[1, 0], rows)
    rates = _by_name([row for row in rows if row["stage"] == ALL], "effective_lr")
    _draw(axes[1, 1], {name: _smooth(points) for name, points in rates.items()},
          f"effective learning rate, mean of {_WINDOW} measured steps", at=0)  # fmt: skip
    make_folder(path.parent)
    save_figure(figure, path)


def _by_name(rows: Sequence[dict[str, str]], column: str) -> dict[str, _Points]:
    """Steps and values of a column by task, or by pair of tasks."""
    found: dict[str, _Points] = {}
    for row in rows:
        if row[column]:
            steps, values = found.setdefault(", ".join(filter(None, (row["task"], row["other"]))), ([], []))
            steps.append(int(row["step"]))
            values.append(float(row[column]))
    return found


def _smooth(points: _Points) -> _Points:
    """Means over the window that ends at each step."""
    steps, values = points
    parts = [values[max(0, end - _WINDOW) : end] for end in range(1, len(values) + 1)]
    return steps, [sum(part) / len(part) for part in parts]


def _draw(axes: Any, lines: dict[str, _Points], title: str, at: float, legend: bool = True) -> None:
    axes.axhline(at, color="black", linewidth=0.8)
    for number, (name, (steps, values)) in enumerate(lines.items()):
        colour, dashes = line_of(number)
        axes.plot(steps, values, dashes, color=colour, marker="o" if len(steps) == 1 else None, label=as_drawn(name))
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if lines and legend:
        axes.legend(fontsize="small", framealpha=0.6)


def _draw_stages(figure: Any, axes: Any, rows: Sequence[dict[str, str]]) -> None:
    stages = [stage for stage in dict.fromkeys(row["stage"] for row in rows) if stage != ALL]
    of_stages = [_by_name([row for row in rows if row["stage"] == stage], "cosine") for stage in stages]
    pairs = list(dict.fromkeys(pair for of_stage in of_stages for pair in of_stage))
    means = [[_mean(of_stage.get(pair, ([], []))[1]) for of_stage in of_stages] for pair in pairs]
    if not means:
        # A damaged file may have lost these rows.
        axes.set_axis_off()
        return
    cells = axes.imshow(means, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for y, row in enumerate(means):
        for x, value in enumerate(row):
            text = "" if math.isnan(value) else f"{value:+.2f}"
            axes.text(x, y, text, ha="center", va="center", color="white" if abs(value) > 0.6 else "black")
    axes.set_xticks(range(len(stages)), [as_drawn(stage) for stage in stages])
    axes.set_yticks(range(len(pairs)), [as_drawn(pair) for pair in pairs])
    axes.set_xlabel("stage of the backbone")
    axes.set_title("mean cosine by stage", fontsize="medium")
    figure.colorbar(cells, ax=axes)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
