"""How far a training has come: what a resumed run needs besides weights, optimiser and balancer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from torch import Tensor
from typing_extensions import TypedDict

from mtframe import options
from mtframe.errors import CheckpointError, RecipeError, pasted
from mtframe.kinds import LabelsImages

from ._best import Bests, SavedBests
from ._log import LossMeter, SavedMeter

# The format of what is saved: another number where a version could not go on with another one's.
FORMAT = 4


class TrainingImages(TypedDict):
    """Which images a task is trained on.

    Attributes:
        count: How many.
        names: Digest of their ids, in order; None if the data set does not tell them (`LabelsImages`).
    """

    count: int
    names: str | None


def training_images(dataset: Sized) -> TrainingImages:
    """Those of a data set."""
    names = None
    if isinstance(dataset, LabelsImages):
        told = hashlib.sha256()
        for id in dataset.ids():
            told.update(os.fsencode(id) + b"\0")
        names = told.hexdigest()
    return {"count": len(dataset), "names": names}


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


@with_config(ConfigDict(arbitrary_types_allowed=True, extra="forbid", strict=True))
class SavedState(TypedDict):
    """What `training.pt` holds.

    Attributes:
        format: Of this.
        step: Steps done.
        history: The evaluations so far.
        best: What the best checkpoints are of, as `Bests.plain` gives it.
        meter: Unfinished means of losses.
        stopped: Why training ended early.
        teacher: See `TrainingState`.
        images: Likewise.
        model: The trained weights by name.
        optimizer: As the optimiser's own `state_dict` has it.
        balancer: Likewise; empty for one without a state.
    """

    format: int
    step: Annotated[int, Field(ge=0)]
    history: list[Evaluated]
    best: SavedBests
    meter: SavedMeter
    stopped: str | None
    teacher: str | None
    images: dict[str, TrainingImages]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    balancer: dict[str, Any]


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
        images: The training images by task, which a resumed run needs again.
    """

    step: int = 0
    history: list[Evaluated] = field(default_factory=list)
    best: Bests = field(default_factory=Bests)
    meter: LossMeter = field(default_factory=LossMeter)
    stopped: str | None = None
    teacher: str | None = None
    images: dict[str, TrainingImages] = field(default_factory=dict)

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
            "images": self.images,
        }

    def load_state_dict(self, saved: SavedState, device: torch.device) -> None:
        """Goes on from what `state_dict` gave and `check` has looked at."""
        self.step, self.history, self.stopped = saved["step"], saved["history"], saved["stopped"]
        self.best = Bests(**saved["best"])
        self.meter.load_state_dict(saved["meter"], device)

    def check(self, saved: Mapping[str, Any], run: Path, steps: int) -> SavedState:
        """What is saved in a run, if a training of so many steps can go on from it.

        Raises:
            CheckpointError: It is of another format, no state of a training, or not of this one: distillation would
                learn from other weights.
            RecipeError: That training was over, or has fewer steps by now, or a task has other images.
        """
        if (found := saved.get("format", 1)) != FORMAT:
            raise CheckpointError(
                f"{run}: its checkpoint is of format {found}, which another version of mtframe goes on with; this one "
                f"reads format {FORMAT}. Go on with that version, or begin a new run with its weights: "
                f"mtframe train {pasted(run / 'recipe.yaml')} --from {pasted(run)}"
            )
        try:
            state = _SAVED.validate_python(saved)
        except ValidationError as error:
            wrong = options.problems(error, saved, "", lambda _: list(SavedState.__annotations__))
            raise CheckpointError(f"{run}: not the state of a training: " + "; ".join(wrong[:5])) from None
        sums, counts = state["meter"]["sums"], state["meter"]["counts"]
        if sums.keys() != counts.keys() or min(counts.values(), default=1) < 1 or any(map(_is_no_sum, sums.values())):
            raise CheckpointError(
                f"{run}: not the state of a training: meter: expected sums of losses, each with a count"
            )
        step = state["step"]
        evaluated = [one["step"] for one in state["history"]]
        if evaluated != sorted(evaluated) or any(
            later > step for later in (*evaluated, *state["best"]["steps"].values())
        ):
            raise CheckpointError(f"{run}: not the state of a training: evaluated after step {step}, which it ends at")
        if step > steps:
            raise RecipeError(f"{run}: at step {step}, beyond the {steps} that its recipe asks for")
        if state["history"] and state["history"][-1]["step"] >= steps:
            raise RecipeError(
                f"{run}: already trained to its end, step {step} of {steps}. For more: "
                f"mtframe train --resume {pasted(run)} train.steps={2 * steps or 'N'}"
            )
        if state["stopped"] is not None and state["history"] and state["history"][-1]["step"] == step:
            raise RecipeError(f"{run}: was ended at step {step} of {steps}: {state['stopped']}")
        if self.teacher is not None and state["teacher"] != self.teacher:
            raise CheckpointError(
                f"{run}: the weights that train.start names are not those that this run began with, and what is kept "
                "would be something else"
            )
        if changed := _changed(state["images"], self.images):
            raise RecipeError(
                f"{run}: its training images are not what they were: {', '.join(changed)}, so it would be another "
                "training. Put them back, or begin a new run with its weights: "
                f"mtframe train {pasted(run / 'recipe.yaml')} --from {pasted(run)}"
            )
        return state


def _changed(then: Mapping[str, TrainingImages], now: Mapping[str, TrainingImages]) -> list[str]:
    """What became of each task's training images, where they are not the same."""
    changed = []
    for task, images in then.items():
        if task not in now:
            changed.append(f"{task} has none")
        elif images["count"] != now[task]["count"]:
            changed.append(f"{task} had {images['count']}, has {now[task]['count']}")
        elif images["names"] != now[task]["names"]:
            changed.append(f"{task} has {images['count']} as before, but others or in another order")
    return changed


def _is_no_sum(value: Tensor) -> bool:
    return value.dim() > 0 or not value.is_floating_point()


_SAVED = TypeAdapter(SavedState)
