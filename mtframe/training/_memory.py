"""What to do where memory is too short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from mtframe.errors import TrainingError, is_memory_short
from mtframe.recipe import Recipe

from ._state import TrainingState


@contextmanager
def memory_explained(
    recipe: Recipe, device: torch.device, state: TrainingState, kept: Callable[[], str]
) -> Iterator[None]:
    """Raises TrainingError with what to lower, and what is kept, in place of an error that memory is too short."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_short(error):
            raise
        sizes = ", ".join(f"{name}: {task.batch_size} of {task.size} pixels" for name, task in recipe.tasks.items())
        raise TrainingError(
            f"out of memory on {device} at step {state.step + 1}. Lower a task's batch_size or size ({sizes}), or "
            "choose a smaller backbone; train.accumulate makes up for small batches" + kept()
        ) from error
