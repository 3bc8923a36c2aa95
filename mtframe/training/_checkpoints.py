"""The checkpoints that a training writes, and goes on from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtframe.errors import CheckpointError, MtframeError, RecipeError, described
from mtframe.kinds import KeepsState
from mtframe.metrics import Thresholds
from mtframe.run import LAST, STATE, Checkpoint, RunFolder, check_finite, check_fit, take_weights

from ._best import BEST
from ._optim import check_optimizer
from ._parts import TrainingParts
from ._state import TrainingState
from ._thresholds import UntrainedThresholds


class Checkpoints:
    """Writes the checkpoints of a run, each whole or not at all.

    Args:
        run: The run's folder.
        parts: What is trained.
        state: How far it is.
        trained: The tasks that are trained.
    """

    def __init__(self, run: RunFolder, parts: TrainingParts, state: TrainingState, trained: Collection[str]) -> None:
        self._run, self._parts, self._state, self._trained = run, parts, state, trained
        self._restored: Checkpoint | None = None
        self._untrained = self._begun_with(parts.loaded.thresholds if parts.loaded is not None else {})

    @property
    def last(self) -> Path:
        """The folder of the one that the run goes on from."""
        return self._run.checkpoints / LAST

    def save_best(self, name: str, thresholds: Mapping[str, Thresholds]) -> Path:
        """The weights for use, under the name of what they are the best of. Raises TrainingError.

        Args:
            name: It.
            thresholds: By task, what was chosen as these weights were scored.
        """
        weights = self._parts.evaluated_model.state_dict()
        return self._run.save_checkpoint(name, weights, self._state.step, thresholds=self._all(thresholds))

    def save_last(self, thresholds: Mapping[str, Thresholds]) -> Path:
        """The weights for use, and all that going on needs. Raises TrainingError.

        Args:
            thresholds: By task, what was chosen if these weights were scored; none if they were not.
        """
        parts = self._parts
        state: dict[str, Any] = {
            **self._state.state_dict(),
            "model": parts.model.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "balancer": parts.balancer.state_dict() if isinstance(parts.balancer, KeepsState) else {},
        }
        weights = parts.evaluated_model.state_dict()
        return self._run.save_checkpoint(LAST, weights, self._state.step, state, self._all(thresholds))

    def check_current(self) -> None:
        """Raises RecipeError if another process has trained the run since it was restored."""
        if self._restored is not None and not self._restored.is_there:
            raise RecipeError(f"{self._run.path}: has been trained further since it was loaded. Load it again")
        self._restored = None

    def restore(self) -> dict[str, str]:
        """Puts parts and state where the last whole checkpoint left them.

        A best checkpoint that is damaged is forgotten: the next evaluation is the best of its kind again.

        Returns:
            By name of such a checkpoint, what is wrong with it.

        Raises:
            RecipeError: That training was over, or was none.
            CheckpointError: There is no checkpoint, none is whole, or it is of another format or architecture.
        """
        parts, checkpoint = self._parts, self._run.taken_up or self._run.last()
        self._restored = checkpoint
        file, plain = checkpoint.folder / STATE, checkpoint.state()
        saved = self._state.check(plain, self._run.path, parts.length.steps)
        if saved["step"] != checkpoint.manifest.step:
            raise CheckpointError(
                f"{file}: of step {saved['step']}, and its checkpoint of step {checkpoint.manifest.step}"
            )
        tasks = parts.model.tasks
        known = {BEST, *(f"{BEST}_{task}" for task in tasks), *tasks}
        named = {*saved["best"]["steps"], *(task for evaluated in saved["history"] for task in evaluated["tasks"])}
        if unknown := named - known:
            raise CheckpointError(f"{file}: not the state of this training: it knows of {min(unknown)!r}")
        check_fit(parts.model, saved["model"], file)
        check_finite(saved["model"], file)
        with _explained(file):
            check_optimizer(saved["optimizer"], parts.optimizer, saved["step"])
            parts.optimizer.load_state_dict(saved["optimizer"])
            if isinstance(parts.balancer, KeepsState):
                parts.balancer.load_state_dict(saved["balancer"])
        parts.model.load_state_dict(saved["model"])
        if parts.average is not None:
            weights = checkpoint.weights()
            check_fit(parts.average.module, weights, checkpoint.folder)
            take_weights(parts.average.module, weights)
        self._state.load_state_dict(saved, parts.device)
        self._untrained = self._begun_with(checkpoint.thresholds())
        broken = self._run.broken(self._state.best.steps, self._state.step)
        for name in broken:
            self._state.best.forget(name)
        return broken

    def _begun_with(self, thresholds: Mapping[str, Thresholds]) -> UntrainedThresholds:
        return UntrainedThresholds(thresholds, self._evaluated, self._trained)

    def _all(self, chosen: Mapping[str, Thresholds]) -> dict[str, Thresholds]:
        return {**self._untrained.of(self._evaluated), **chosen}

    @property
    def _evaluated(self) -> Any:
        return self._parts.evaluated_model


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Says of which file it is that something cannot go on from."""
    try:
        yield
    except MtframeError:
        raise
    except Exception as error:
        raise CheckpointError(f"{file}: not the state of this training: {described(error)}") from error
