"""What `mtframe affinity` found, as tables and as JSON. Imports torch."""

# Shapes: T tasks.

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

from mtframe.affinity import Affinity, Group, Grouping, Means, best_groupings, choose
from mtframe.evaluation import finite
from mtframe.run import write_text

from ._app import table


class Report:
    """What was measured and what follows from it.

    Args:
        found: What was measured.
        networks: How many networks there may be; None for as few as do.

    Raises:
        RecipeError: There are too many tasks.
    """

    def __init__(self, found: Affinity, networks: int | None) -> None:
        self.found = found
        self.groupings = best_groupings(found) if found.enough else []
        self.chosen = choose(self.groupings, networks) if found.enough else None

    def plain(self) -> dict[str, Any]:
        """A dictionary for JSON; null where nothing was measured, or too little for a proposal."""
        found, tasks = self.found, self.found.tasks
        affinity = {
            task: {other: _numbers(found.affinity, i, j) for j, other in enumerate(tasks)}
            for i, task in enumerate(tasks)
        }
        cosines = [
            {
                "tasks": [tasks[a], tasks[b]],
                "stages": {stage: _numbers(means, a, b) for stage, means in found.cosines.items()},
            }
            for a, b in self._pairs()
        ]
        groupings = [{"networks": budget, **_plain(grouping)} for budget, grouping in enumerate(self.groupings, 1)]
        return finite(
            {
                "measured_steps": found.measured,
                "affinity": affinity,
                "cosines": cosines,
                "groupings": groupings,
                "proposal": None if self.chosen is None else _plain(self.chosen),
            }
        )

    def write(self, folder: Path) -> Path:
        """Writes `affinity.json` into a folder."""
        write_text(folder / "affinity.json", json.dumps(self.plain(), indent=1) + "\n")
        return folder / "affinity.json"

    def lines(self) -> list[str]:
        """Lines for people: affinities, cosines by stage, groups, and what is proposed."""
        measured = self.found.measured
        of = f"± standard error of {measured} measured steps" if self.found.enough else f"of {measured} measured step"
        return [
            f"Affinity of a task onto others, in thousandths of their loss, {of}",
            *self._affinities(),
            "",
            "Cosine of two tasks' gradients, by stage of the backbone; share of the steps in which it was below 0",
            *self._cosines(),
            "",
            *self._proposal(),
        ]

    def _affinities(self) -> list[str]:
        tasks, means = self.found.tasks, self.found.affinity
        rows = [
            [f"of {task}", *(_cell(means, i, j, "+.2f", 1e3) for j in range(len(tasks)))]
            for i, task in enumerate(tasks)
        ]
        return table(["", *(f"onto {task}" for task in tasks)], rows).splitlines()

    def _cosines(self) -> list[str]:
        tasks, cosines = self.found.tasks, self.found.cosines
        rows = [
            [
                f"{tasks[a]}, {tasks[b]}",
                *(_cell(means, a, b, "+.3f") for means in cosines.values()),
                f"{cosines['all'].negative[a, b].item():.0%}",
            ]
            for a, b in self._pairs()
        ]
        names = ("all stages" if stage == "all" else f"stage {stage}" for stage in cosines)
        return table(["", *names, "below 0"], rows).splitlines()

    def _proposal(self) -> list[str]:
        if self.chosen is None:
            return [
                "Proposed",
                "  nothing: not enough was measured, since a single step has no standard error; "
                "give more --steps, or a smaller --every",
            ]
        return [
            "Best groups for a number of networks; sum of the affinities in them, in thousandths",
            *self._groups(),
            "",
            "Proposed",
            *(f"  {_named(group)}: {_sharing(group)}" for group in self.chosen.groups),
        ]

    def _groups(self) -> list[str]:
        rows = [
            [str(budget), f"{grouping.score * 1e3:+.2f}", " | ".join(map(_named, grouping.groups))]
            for budget, grouping in enumerate(self.groupings, 1)
        ]
        return table(["networks", "score", "groups"], rows).splitlines()

    def _pairs(self) -> list[tuple[int, int]]:
        return list(combinations(range(len(self.found.tasks)), 2))


def _sharing(group: Group) -> str:
    if len(group.tasks) + len(group.helpers) == 1:
        return "by itself"
    if group.opposed is None:
        return f"together, nothing speaks against sharing all {group.stages} stages that were measured"
    at = group.opposed
    where = f"{at.task} and {at.other} are opposed in stage {at.stage}, cosine {at.cosine:+.3f}"
    if group.shared == 0:
        return f"together by affinity, but with no stage to share: {where}"
    return f"together, with sharing={{name: layers, shared: {group.shared}}}: {where}"


def _numbers(means: Means, i: int, j: int) -> dict[str, float]:
    return {
        "mean": means.mean[i, j].item(),
        "error": means.error[i, j].item(),
        "negative": means.negative[i, j].item(),
    }


def _plain(grouping: Grouping) -> dict[str, Any]:
    groups = [
        {
            "tasks": list(group.tasks),
            "helpers": list(group.helpers),
            "shared_stages": group.shared,
            "stages": group.stages,
        }
        for group in grouping.groups
    ]
    return {"score": grouping.score, "groups": groups}


def _named(group: Group) -> str:
    return ", ".join(group.tasks) + (f" (helped by {', '.join(group.helpers)})" if group.helpers else "")


def _cell(means: Means, i: int, j: int, form: str, factor: float = 1.0) -> str:
    value, error = means.mean[i, j].item() * factor, means.error[i, j].item() * factor
    if value != value:
        return "n/a"
    return f"{value:{form}}" + (f" ± {error:{form[1:]}}" if error == error else "")
