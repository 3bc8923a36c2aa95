"""What to do where memory is too short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mtframe.errors import TrainingError
from mtframe.recipe import Recipe

from ._state import TrainingState


@contextmanager
def memory_explained(recipe: Recipe, device: torch.device, state: TrainingState) -> Iterator[None]:
    """Raises TrainingError with what to lower in place of torch's error that memory is too short."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
            raise
        sizes = ", ".join(f"{name}: {task.batch_size} of {task.size} pixels" for name, task in recipe.tasks.items())
        raise TrainingError(
            f"out of memory on {device} at step {state.step + 1}. Lower a task's batch_size or size ({sizes}), or "
            "choose a smaller backbone; train.accumulate makes up for small batches"
        ) from error
