"""Which checkpoints are the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from mtframe.evaluation import mean_relative_gain

# The name of the checkpoint of least sacrifice; of a task's best one, with the task behind it.
BEST = "best"


@with_config(ConfigDict(extra="forbid", strict=True))
class SavedBests(TypedDict):
    """`Bests` of numbers and text."""

    scores: dict[str, float]
    tasks: dict[str, float]
    steps: dict[str, int]


@dataclass
class Bests:
    """The best evaluations of a training.

    `best_TASK` follows the task's primary score. `best` follows the mean relative gain over the tasks, each relative to
    the best that it has reached so far in this run (docs/training.md). Where all scores are NaN, both take the latest.

    Attributes:
        scores: Of the checkpoint `best`, by task.
        tasks: The best score so far by task.
        steps: By name of a checkpoint, the step that it is of.
    """

    scores: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)

    def update(self, step: int, scores: Mapping[str, float], higher: Mapping[str, bool]) -> tuple[list[str], float]:
        """Takes an evaluation into account.

        Args:
            step: Steps done.
            scores: Primary score by task.
            higher: By task, whether a higher score is better.

        Returns:
            Names of the checkpoints that the weights of this step are now the best of, and the evaluation's gain.
        """
        names = []
        for task, score in scores.items():
            unranked = math.isnan(score) and math.isnan(self.tasks.get(task, score))
            # Where no evaluation can be told from another, the latest stands: it has learned most.
            if task not in self.tasks or unranked or better(score, self.tasks[task], higher_is_better=higher[task]):
                self.tasks[task] = score
                names.append(f"{BEST}_{task}")
        gain = mean_relative_gain(scores, self.tasks, higher)
        # What no step has trained yields to anything: it only says what tasks that are kept were like.
        untrained = self.steps.get(BEST, 0) == 0
        nothing = all(math.isnan(score) for score in self.tasks.values())
        if untrained or nothing or gain > mean_relative_gain(self.scores, self.tasks, higher):
            self.scores = dict(scores)
            names.append(BEST)
        self.steps |= dict.fromkeys(names, step)
        return names, gain

    def forget(self, name: str) -> None:
        """Forgets a checkpoint that is gone, as if nothing had been evaluated for it yet."""
        self.steps.pop(name, None)
        if name == BEST:
            self.scores = {}
        else:
            self.tasks.pop(name.removeprefix(f"{BEST}_"), None)

    def plain(self) -> SavedBests:
        """As `metrics.json` and checkpoints have it."""
        return SavedBests(scores=self.scores, tasks=self.tasks, steps=self.steps)


def better(score: float, top: float, *, higher_is_better: bool) -> bool:
    """Whether a score beats the best so far; what could not be resolved (NaN) beats nothing."""
    if math.isnan(score) or math.isnan(top):
        return math.isnan(top) and not math.isnan(score)
    return score > top if higher_is_better else score < top
