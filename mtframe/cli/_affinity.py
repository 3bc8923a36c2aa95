"""What `mtframe affinity` found, as tables and as JSON. Imports torch."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mtframe.errors import MtframeError
from mtframe.evaluation import finite
from mtframe.run import write_text
from mtframe.training import Affinity, Grouping, Network, best_groupings, choose


class Report:
    """What was measured and what it comes to.

    Args:
        found: What was measured.
        networks: How many networks there may be; None for as few as do.
    """

    def __init__(self, found: Affinity, networks: int | None) -> None:
        self.found = found
        self.groupings = best_groupings(found)
        self.chosen = choose(self.groupings, networks)

    def plain(self) -> dict[str, Any]:
        """For JSON; null where nothing was measured."""
        found, tasks = self.found, self.found.tasks
        pairs = [
            {
                "tasks": [tasks[a], tasks[b]],
                "stages": {
                    stage: _numbers(means.mean, means.error, means.negative, a, b)
                    for stage, means in found.cosines.items()
                },
            }
            for a, b in combinations(range(len(tasks)), 2)
        ]
        affinity = {
            task: {
                other: _numbers(found.affinity.mean, found.affinity.error, found.affinity.negative, i, j)
                for j, other in enumerate(tasks)
            }
            for i, task in enumerate(tasks)
        }
        return finite(
            {
                "measured_steps": found.measured,
                "affinity": affinity,
                "cosines": pairs,
                "groupings": [
                    {"networks": budget, **_plain(grouping)} for budget, grouping in enumerate(self.groupings, 1)
                ],
                "proposal": _plain(self.chosen),
            }
        )

    def write(self, out: Path) -> Path:
        """Writes `affinity.json` into a folder, which is made. Raises MtframeError if it cannot be."""
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MtframeError(f"--out: {out} could not be made ({error.strerror or error})") from error
        write_text(out / "affinity.json", json.dumps(self.plain(), indent=1) + "\n")
        return out / "affinity.json"

    def show(self, console: Console) -> None:
        """Prints tables: affinities, cosines by stage, groupings, and the proposal."""
        found, tasks = self.found, self.found.tasks
        table = _table(f"affinity of a task onto others, thousandths of their loss ({found.measured} measured steps)",
                       "of", *(f"onto {task}" for task in tasks))  # fmt: skip
        for i, task in enumerate(tasks):
            table.add_row(
                task, *(_cell(found.affinity.mean, found.affinity.error, i, j, 1e3) for j in range(len(tasks)))
            )
        console.print(table)
        stages = list(found.cosines)
        table = _table("cosine of the tasks' gradients, by stage of the backbone", "tasks",
                       *("all stages" if stage == "all" else f"stage {stage}" for stage in stages), "opposed")  # fmt: skip
        for a, b in combinations(range(len(tasks)), 2):
            cells = [_cell(found.cosines[stage].mean, found.cosines[stage].error, a, b) for stage in stages]
            table.add_row(f"{tasks[a]}, {tasks[b]}", *cells, f"{found.cosines['all'].negative[a, b].item():.0%}")
        console.print(table)
        table = _table("best groups", "networks", "score", "groups")
        for budget, grouping in enumerate(self.groupings, 1):
            mark = "bold" if grouping is self.chosen and budget == len(grouping.networks) else ""
            table.add_row(str(budget), f"{grouping.score * 1e3:.3g}", _groups(grouping), style=mark)
        console.print(table)
        for line in self._proposal():
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _proposal(self) -> list[str]:
        lines = []
        for number, network in enumerate(self.chosen.networks, 1):
            trained = (*network.tasks, *network.helpers)
            lines.append(f"network {number}: {_named(network)}{_sharing(network) if len(trained) > 1 else ''}")
        return ["proposal", *(f"  {line}" for line in lines)]


def _sharing(network: Network) -> str:
    if network.why is None:
        return f"; nothing speaks against sharing all {network.stages} stages"
    stage, task, other, cosine = network.why
    where = f"gradients of {task} and {other} are opposed in stage {stage} (cosine {cosine:+.3f})"
    if network.shared == 0:
        return f"; share nothing: {where}"
    return f"; sharing={{name: layers, shared: {network.shared}}}: {where}"


def _numbers(mean: Tensor, error: Tensor, negative: Tensor, i: int, j: int) -> dict[str, float]:
    return {"mean": mean[i, j].item(), "error": error[i, j].item(), "negative": negative[i, j].item()}


def _plain(grouping: Grouping) -> dict[str, Any]:
    return {
        "score": grouping.score,
        "groups": [
            {
                "tasks": list(network.tasks),
                "helpers": list(network.helpers),
                "shared_stages": network.shared,
                "stages": network.stages,
            }
            for network in grouping.networks
        ],
    }


def _named(network: Network) -> str:
    helpers = f" (helped by {', '.join(network.helpers)})" if network.helpers else ""
    return ", ".join(network.tasks) + helpers


def _groups(grouping: Grouping) -> str:
    return " | ".join(_named(network) for network in grouping.networks)


def _cell(mean: Tensor, error: Tensor, i: int, j: int, factor: float = 1.0) -> str:
    value, spread = mean[i, j].item() * factor, error[i, j].item() * factor
    return "n/a" if value != value else f"{value:+.3g} ± {spread:.2g}"


def _table(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 or column == "groups" else "right")
    return table
