"""Inter-task affinities of a recipe, measured during a short training of it."""

# Shapes: T tasks.

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import Batch
from mtframe.errors import RecipeError
from mtframe.gradients import GradientEngine, Gradients, cosine, names_by_stage, stage_grams
from mtframe.hooks import Hooks, hookimpl
from mtframe.recipe import Recipe
from mtframe.training import Meetings, Trainer, check_comparable

from ._lookahead import lookahead
from ._means import Affinity, Means


def estimate_affinity(recipe: Recipe, hooks: Hooks | None = None, *, steps: int = 200, every: int = 5) -> Affinity:
    """Trains a recipe for a while, into no run, and measures at every k-th step how its tasks affect each other.

    Args:
        recipe: A recipe that was checked.
        hooks: Observers of the training.
        steps: Length of the training, with a learning-rate schedule of its own.
        every: k.

    Raises:
        MtframeError: A part cannot be built or read, no two tasks can be compared in a step, or training failed.
    """
    if every > steps:
        raise RecipeError(f"--every: must be at most the number of steps, {steps}, got {every}")
    options = recipe.train.model_copy(update={"steps": steps, "ema": None, "gradients_every": None})
    assembly = Assembly(recipe.model_copy(update={"train": options}))
    with tempfile.TemporaryDirectory() as folder:
        # A run that is never begun: nothing is written there.
        trainer = Trainer(assembly, Path(folder) / "run", hooks or Hooks())
        measured = LookaheadObserver(trainer, every)
        trainer.essential.register(measured, "affinity")
        trainer.run_steps()
    return measured.affinity(steps)


class LookaheadObserver:
    """Measures, before every k-th step in which tasks meet, what an update for each task would do to all losses.

    Args:
        trainer: Of the training that is observed.
        every: k.

    Raises:
        RecipeError: No two tasks can be compared in a step.
    """

    def __init__(self, trainer: Trainer, every: int) -> None:
        self._trainer, self._every = trainer, every
        self._engine = GradientEngine(trainer.model, exact=True)
        self._meetings = Meetings(trainer.batches, trainer.options.accumulate)
        check_comparable(self._engine, self._meetings, "affinity")
        self._stages = names_by_stage(trainer.model.sharing, self._engine.shared_parameters())
        self._affinities: list[Tensor] = []
        self._cosines: dict[str, list[Tensor]] = {}

    @hookimpl
    def step_started(self, step: int, batches: Sequence[Mapping[str, Batch]]) -> None:
        """Measures a step whose turn it is, with one of the batches that it accumulates: that of the most tasks."""
        if not self._meetings.due(step + 1, self._every) or not self._engine.shared_parameters():
            # In the first steps nothing that tasks share may be trained (`frozen_steps`).
            return
        most = max((self._trainer.on_device(by_task) for by_task in batches), key=_count)
        if _count(most) < 2:
            return
        model, lr = self._trainer.model, self._trainer.learning_rate
        affinity_TT, gradients = lookahead(model, self._engine, most, lr, seed=step)
        self._affinities.append(affinity_TT)
        for stage, cosines_TT in self._cosines_of(gradients).items():
            self._cosines.setdefault(stage, []).append(cosines_TT)

    def affinity(self, steps: int) -> Affinity:
        """What those of `steps` steps that were measured come to. Raises RecipeError if none was."""
        if not self._affinities:
            raise RecipeError(f"--steps: {steps} steps have none that is measured; give more, or a smaller --every")
        return Affinity(
            self._trainer.model.tasks,
            len(self._affinities),
            Means.of(torch.stack(self._affinities)),
            {stage: Means.of(torch.stack(values)) for stage, values in self._cosines.items()},
        )

    def _cosines_of(self, gradients: Mapping[str, Gradients]) -> dict[str, Tensor]:
        """(T, T) by stage; NaN for a task that is not in the step."""
        tasks = self._trainer.model.tasks
        found = {}
        for stage, gram_TT in stage_grams([gradients.get(task, {}) for task in tasks], self._stages).items():
            found[stage] = torch.full((len(tasks),) * 2, torch.nan, dtype=torch.float64)
            for a, b in combinations(range(len(tasks)), 2):
                found[stage][a, b] = found[stage][b, a] = cosine(gram_TT, a, b)
        return found


def _count(batches: Mapping[str, Batch]) -> int:
    """How many tasks know something of these batches."""
    return sum(len(batch.targets) for batch in batches.values())
