"""Ending a training that no longer gets better."""

from __future__ import annotations

from typing import Any

from mtframe.errors import RecipeError
from mtframe.hooks import hookimpl
from mtframe.recipe import Recipe


class EarlyStopping:
    """Ends the training when a number of evaluations in a row have given no better checkpoint.

    What counts is what the run keeps: `best`, which weighs all tasks by their mean relative gain, or one task's
    `best_TASK`. Nothing but the trainer's own record is asked, so a run that goes on ends where one that never
    stopped would have.

    Args:
        patience: Evaluations without a better checkpoint, 1 or more.
        task: The task whose score counts; all of them if None.

    Raises:
        RecipeError: `patience` is out of its range.
    """

    def __init__(self, *, patience: int = 5, task: str | None = None) -> None:
        if patience < 1:
            raise RecipeError(f"patience: must be 1 or more, got {patience}")
        self.patience, self.task = patience, task
        self._trainer: Any = None

    @hookimpl
    def recipe_read(self, recipe: Recipe) -> None:
        """Refuses a recipe without the task that it is to follow."""
        if self.task is not None and self.task not in recipe.tasks:
            raise RecipeError(f"early-stopping: no task {self.task!r}; the tasks are {', '.join(recipe.tasks)}")

    @hookimpl
    def training_started(self, trainer: Any) -> None:
        """Keeps the trainer, which is asked at each evaluation."""
        self._trainer = trainer

    @hookimpl
    def evaluation_ended(self) -> None:
        """Counts, and stops."""
        name = f"best_{self.task}" if self.task else "best"
        since = self._trainer.best_steps[name]
        without = sum(evaluation["step"] > since for evaluation in self._trainer.history)
        if without >= self.patience:
            self._trainer.stop(f"{without} evaluations without a better {name!r}, which is of step {since}")
