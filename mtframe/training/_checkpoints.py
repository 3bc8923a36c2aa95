"""The checkpoints that a training writes, and goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtframe.kinds import KeepsState
from mtframe.run import RunFolder, check_fit

from ._parts import TrainingParts
from ._state import TrainingState

# The name of the checkpoint that a run goes on from.
LAST = "last"


class Checkpoints:
    """Writes the checkpoints of a run, each whole or not at all.

    Args:
        run: The run's folder.
        parts: What is trained.
        state: How far it is.
    """

    def __init__(self, run: RunFolder, parts: TrainingParts, state: TrainingState) -> None:
        self._run, self._parts, self._state = run, parts, state

    @property
    def last(self) -> Path:
        """The folder of the one that the run goes on from."""
        return self._run.checkpoints / LAST

    def save_best(self, name: str) -> Path:
        """The weights for use, under the name of what they are the best of. Raises TrainingError."""
        return self._run.save_checkpoint(name, self._parts.evaluated_model.state_dict())

    def save_last(self) -> Path:
        """The weights for use, and all that going on needs. Raises TrainingError."""
        parts = self._parts
        state: dict[str, Any] = {
            **self._state.state_dict(),
            "model": parts.model.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "balancer": parts.balancer.state_dict() if isinstance(parts.balancer, KeepsState) else {},
        }
        return self._run.save_checkpoint(LAST, parts.evaluated_model.state_dict(), state)

    def restore(self) -> None:
        """Puts parts and state where the last checkpoint left them.

        Raises:
            RecipeError: That training was over, or was none.
            CheckpointError: There is no checkpoint, or it is of another format or architecture.
        """
        parts, saved = self._parts, self._run.load_state()
        self._state.check(saved, self._run.path, parts.length.steps)
        check_fit(parts.model, saved["model"], self.last)
        parts.model.load_state_dict(saved["model"])
        parts.optimizer.load_state_dict(saved["optimizer"])
        if isinstance(parts.balancer, KeepsState):
            parts.balancer.load_state_dict(saved["balancer"])
        if parts.average is not None:
            self._run.load_weights(parts.average.module, LAST)
        self._state.load_state_dict(saved, parts.device)
