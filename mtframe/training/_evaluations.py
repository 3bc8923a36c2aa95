"""The evaluations of a training: which tasks are scored when, and what becomes of the scores."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

from mtframe.assembly import Assembly
from mtframe.errors import MtframeError
from mtframe.evaluation import Evaluation, evaluate, finite, ranks_by
from mtframe.hooks import Calls
from mtframe.metrics import Thresholds
from mtframe.run import RunFolder, write_text

from ._checkpoints import Checkpoints
from ._interruption import Interruption
from ._log import LOG
from ._parts import TrainingParts
from ._state import Evaluated, TrainingState


class Evaluations:
    """Scores tasks, keeps the best weights as checkpoints, and writes it all down in `metrics.json`.

    Args:
        assembly: The recipe's parts.
        run: The run's folder.
        parts: What is trained.
        state: How far it is; the history and the bests in it are kept here.
        checkpoints: Of the run.
        call: The observers' hooks.
        interruption: Whether somebody asks to end, which scoring heeds at once.

    Attributes:
        tasks: Those that are scored: the trained ones, and those that distillation keeps.
        unevaluated: Of the latter, by name, why one cannot be.
        latest: What came out last, by task; nothing before the first.
    """

    def __init__(
        self,
        assembly: Assembly,
        run: RunFolder,
        parts: TrainingParts,
        state: TrainingState,
        checkpoints: Checkpoints,
        call: Calls,
        interruption: Interruption,
    ) -> None:
        self._assembly, self._run, self._parts, self._state = assembly, run, parts, state
        self._checkpoints, self._call, self._interruption = checkpoints, call, interruption
        self.tasks, self.unevaluated = self._tasks()
        self.latest: dict[str, Evaluation] = {}

    @property
    def due(self) -> bool:
        """Whether the tasks are to be scored at this step, and have not been."""
        state, length = self._state, self._parts.length
        every = self._assembly.recipe.train.evaluate_every
        done = bool(state.history) and state.history[-1]["step"] == state.step
        if state.step == 0 and length.steps > 0:
            # What tasks that are kept are measured against.
            return self._parts.distillation is not None and not done
        due = every is not None and state.step % max(1, round(every * length.steps_per_epoch)) == 0
        last = state.step == length.steps or state.stopped is not None
        return (due or last) and not done

    @property
    def thresholds(self) -> dict[str, Thresholds]:
        """By task, what the last evaluation has chosen, if it was of the weights as they are now."""
        history = self._state.history
        if not history or history[-1]["step"] != self._state.step:
            return {}
        return self._chosen()

    def evaluate(self) -> None:
        """Scores all tasks on their validation data.

        Raises:
            MtframeError: The data cannot be read, or a file cannot be written.
            StopNow: Somebody asks to end; nothing has changed.
        """
        model: Any = self._parts.evaluated_model
        with self._interruption.at_once():
            found = evaluate(model, self._assembly, self.tasks, "val")
        self.latest = {task: self._as_ranked(task, result) for task, result in found.items()}
        for task, evaluation in self.latest.items():
            for reason in evaluation.skipped:
                LOG.warning("task %s: evaluation skipped an unreadable image: %s", task, reason)
            if evaluation.ranked and not self._state.history:
                LOG.warning("task %s: %s", task, evaluation.ranked)
        state, scores = self._state, {task: result.score for task, result in self.latest.items()}
        higher = {task: result.higher_is_better for task, result in self.latest.items()}
        names, gain = state.best.update(state.step, scores, higher)
        for name in names:
            saved = self._checkpoints.save_best(name, self._chosen())
            self._call.checkpoint_saved(path=saved, step=state.step)
        values = {task: result.values for task, result in self.latest.items()}
        epochs = self._parts.batches.epochs(state.step * self._assembly.recipe.train.accumulate)
        state.history.append(Evaluated(step=state.step, gain=gain, epochs=epochs, tasks=values))
        record = {"evaluations": state.history, "best": state.best.plain()}
        write_text(self._run.metrics_json, json.dumps(finite(record), indent=2))
        LOG.info("step %d: %s", state.step, ", ".join(f"{task} {result.shown}" for task, result in self.latest.items()))
        self._call.evaluation_ended(step=state.step, metrics=deepcopy(values), scores=dict(scores))

    def _as_ranked(self, task: str, result: Evaluation) -> Evaluation:
        """With the primary value that the first evaluation of the run could tell: two values are never compared."""
        told = (ranks_by(result.ranking, past["tasks"].get(task, {})) for past in self._state.history)
        name = next((name for name in told if name is not None), None)
        return result if name is None else replace(result, primary=name)

    def _chosen(self) -> dict[str, Thresholds]:
        return {task: result.thresholds for task, result in self.latest.items() if result.thresholds is not None}

    def _tasks(self) -> tuple[tuple[str, ...], dict[str, str]]:
        trained = self._assembly.recipe.trained
        if self._parts.distillation is None:
            return trained, {}
        if self._state.history:
            # As it began: what is compared must be there to the end.
            return tuple(self._state.history[-1]["tasks"]), {}
        why = {task: said for task in self._parts.distillation.tasks if (said := self._unreadable(task)) is not None}
        return tuple(task for task in self._assembly.tasks if task in trained or task not in why), why

    def _unreadable(self, task: str) -> str | None:
        """Why a task's validation data cannot be scored; None if it can."""
        try:
            self._assembly.metrics(task, "val")
        except MtframeError as error:
            return str(error)
        return None
