"""How far a training has come: what a resumed run needs besides weights, optimiser and balancer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch

from mtframe.errors import CheckpointError, RecipeError

from ._best import Bests
from ._log import LossMeter

# The format of what is saved: another number where a version could not go on with another one's.
FORMAT = 2


class Evaluated(TypedDict):
    """One evaluation, as `metrics.json` has it.

    Attributes:
        step: Steps done.
        gain: Mean relative gain of the tasks (docs/training.md).
        epochs: By task, how often each of its images had been seen.
        tasks: Every metric's values by task.
    """

    step: int
    gain: float
    epochs: dict[str, float]
    tasks: dict[str, dict[str, float]]


@dataclass
class TrainingState:
    """The progress of a training.

    Attributes:
        step: Steps done.
        history: The evaluations so far.
        best: What the best checkpoints are of.
        meter: Means of the losses since they were last logged.
        stopped: Why training ended before its last step; None if it did not.
        teacher: Digest of the weights that distillation learns from, which a resumed run needs again; None without.
    """

    step: int = 0
    history: list[Evaluated] = field(default_factory=list)
    best: Bests = field(default_factory=Bests)
    meter: LossMeter = field(default_factory=LossMeter)
    stopped: str | None = None
    teacher: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state in tensors, numbers, text and containers of these, which are all that is read again."""
        return {
            "format": FORMAT,
            "step": self.step,
            "history": self.history,
            "best": self.best.plain(),
            "meter": self.meter.state_dict(),
            "stopped": self.stopped,
            "teacher": self.teacher,
        }

    def load_state_dict(self, saved: Mapping[str, Any], device: torch.device) -> None:
        """Goes on from what `state_dict` gave; `check` has looked at it."""
        self.step, self.history = saved["step"], saved["history"]
        self.best = Bests(**saved["best"])
        self.meter.load_state_dict(saved["meter"], device)

    def check(self, saved: Mapping[str, Any], run: Path, steps: int) -> None:
        """Refuses what is saved in a run if a training of `steps` steps cannot go on from it.

        Raises:
            CheckpointError: It is of another format, or distillation would learn from other weights.
            RecipeError: That training was over.
        """
        if (found := saved.get("format", 1)) != FORMAT:
            raise CheckpointError(
                f"{run}: its checkpoint is of format {found}, which another version of mtframe goes on with; this one "
                f"reads format {FORMAT}. Go on with that version, or begin a new run with its weights: "
                f"mtframe train {run / 'recipe.yaml'} --from {run}"
            )
        if saved["history"] and saved["history"][-1]["step"] >= steps:
            raise RecipeError(f"{run}: already trained to its end, step {saved['step']} of {steps}")
        if saved["stopped"] is not None:
            raise RecipeError(f"{run}: was ended at step {saved['step']} of {steps}: {saved['stopped']}")
        if self.teacher is not None and saved["teacher"] != self.teacher:
            raise CheckpointError(
                f"{run}: the weights that train.start names are not those that this run began with, and what is kept "
                "would be something else"
            )
