"""The trainer: drives the steps of a training, evaluates and saves, and calls observers."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from mtframe.assembly import Assembly, observe
from mtframe.data import Batch, MixedBatches
from mtframe.errors import StarvedError, pasted
from mtframe.evaluation import Evaluation
from mtframe.hooks import Calls, Hooks
from mtframe.kinds import CountsFailures
from mtframe.model import MultiTaskModel
from mtframe.registry import name_of
from mtframe.run import RunFolder, write_learned
from mtframe.survey import learned_images, refuse, surveyed_tasks

from ._checkpoints import Checkpoints
from ._evaluations import Evaluations
from ._exposure import account, announce, cautions
from ._finite import FiniteCheck
from ._gradient_log import GradientLog
from ._groups import described
from ._guards import guards
from ._interruption import Interrupted, Interruption, StopNow
from ._log import LOG, log_to
from ._memory import memory_explained
from ._optim import learning_rate
from ._parts import Length, build_parts
from ._report import Report
from ._state import Evaluated, TrainingState, training_images
from ._step import Step
from ._surveys import ask_heads, log_surveys, survey_labels
from ._terms import mean_terms


class Trainer:
    """Trains an assembled recipe into a run folder.

    A step is one optimiser step. All that happens in step n is a function of the recipe and n, so a run that was
    killed and resumed gives the same losses as one that was not.

    Args:
        assembly: The recipe's parts.
        run: Where everything is written: a folder, which `fit` makes if it is not a run yet.
        hooks: Observers of the training; those that the recipe names if None.
        resume: Take up the training where the run's last checkpoint left it.

    Raises:
        DataError: The data cannot be meant as it is, and `train.allow` does not say that it is. Nothing has been
            fetched or written yet.
        RecipeError: To be resumed, but it was finished, or made of another run without training; or what is frozen
            leaves a task nothing to train.
        CheckpointError: To be resumed, but there is no checkpoint, or it is of another format or architecture.

    Attributes:
        surveys: What is in the data of each trained task, by its labels alone; nothing of a run that goes on.
        learned: Marks of the images that it, or the weights that it starts from, have learned from; nothing of a run
            that goes on.
        parts: What the training is made of: model, optimiser, batches and so on.
        state: How far it is.
        hooks: The observers; one that raises is disabled.
        essential: Observers that are called before these; what one raises ends the training.
        evaluations: The tasks that are scored, and what came out last.
        forgotten: Of a run that goes on, the best checkpoints that were damaged, and why.
    """

    def __init__(
        self,
        assembly: Assembly,
        run: RunFolder | str | os.PathLike[str],
        hooks: Hooks | None = None,
        *,
        resume: bool = False,
    ) -> None:
        self.assembly = assembly
        self.run = run if isinstance(run, RunFolder) else RunFolder(run)
        if not isinstance(run, RunFolder) and not resume:
            self.run.check_new()
        self.hooks = observe(assembly.recipe) if hooks is None else hooks
        # Before the model, whose weights may have to be fetched: data that cannot be meant is told without.
        surveyed = [] if resume else surveyed_tasks(assembly, ("train", "val"))
        self.learned = {} if resume else learned_images(assembly)
        self.surveys = survey_labels(surveyed, self.learned)
        refuse(self.surveys, assembly.recipe.train.allow)
        self.parts = build_parts(assembly, restoring=resume)
        ask_heads(surveyed, self.surveys, self.model)
        if resume:
            self.run.check_length(self._steps_with, self.parts.length.steps)
        # As they are settled by now.
        self.recipe, self.options = assembly.recipe, assembly.recipe.train
        self._gradient_log = GradientLog.of(self.parts, self.options)
        distillation = self.parts.distillation
        self.state = TrainingState(
            teacher=distillation.digest if distillation is not None else None,
            images={task: training_images(source.dataset) for task, source in self.batches.sources.items()},
        )
        self._checkpoints = Checkpoints(self.run, self.parts, self.state, self.recipe.trained)
        self.forgotten = self._checkpoints.restore() if resume else {}
        # The step that the last checkpoint is of.
        self._saved = self.step if resume else -1
        # A resumed run has not seen what came before.
        self.essential = guards(self.recipe, due=self.step + self.parts.length.steps_per_epoch)
        self._call = Calls(self.essential, self.hooks)
        self._interruption = Interruption()
        self.evaluations = Evaluations(
            assembly, self.run, self.parts, self.state, self._checkpoints, self._call, self._interruption
        )
        self._step = Step.of(self.parts, self.options, FiniteCheck(self.model, self.options.lr, self._checkpoints.last))
        self._report = Report(self.parts, self.state, self.options.accumulate)
        self._call.model_assembled(model=self.model, recipe=self.recipe.model_copy(deep=True))

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        hooks: Hooks | None = None,
        *,
        overrides: Sequence[str] = (),
        components: Sequence[object] = (),
    ) -> Trainer:
        """The trainer of a run that was stopped, where its last whole checkpoint left it.

        Args:
            path: The run's folder.
            hooks: Observers; those that its recipe names if None.
            overrides: `key=value` changes to its recipe, of what leaves every step as it was, or makes it longer
                (docs/training.md).
            components: The classes that its recipe was given from Python.

        Raises:
            RecipeError: No run there, a component is missing, it was trained to its end or not at all, or its recipe is
                not what it was.
            CheckpointError: There is no whole checkpoint, or it is of another format or architecture.
        """
        for component in components:
            name_of(component)
        run = RunFolder.open(path)
        checked = run.take_up(overrides)
        return cls(Assembly(checked, run.infos()), run, hooks, resume=True)

    def _steps_with(self, changed: Mapping[str, Any]) -> int:
        options = {key.removeprefix("train."): value for key, value in changed.items()}
        return Length.of(self.parts.batches, self.assembly.recipe.train.model_copy(update=options)).steps

    @property
    def model(self) -> MultiTaskModel:
        """The model that is trained."""
        return self.parts.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What updates it."""
        return self.parts.optimizer

    @property
    def learning_rate(self) -> float:
        """That of the step which was begun last, of a part whose `lr_scale` is 1."""
        return learning_rate(self.optimizer)

    @property
    def batches(self) -> MixedBatches:
        """What every step trains on."""
        return self.parts.batches

    @property
    def steps(self) -> int:
        """Number of steps of the whole training."""
        return self.parts.length.steps

    @property
    def step(self) -> int:
        """Steps done."""
        return self.state.step

    @property
    def stopped(self) -> str | None:
        """Why training ended before its last step; None if it did not."""
        return self.state.stopped

    @property
    def history(self) -> list[Evaluated]:
        """The evaluations so far: `step`, `gain` (mean relative gain) and every metric's values by task."""
        return self.state.history

    @property
    def best_steps(self) -> dict[str, int]:
        """The step of each checkpoint, by its name: `best` or `best_TASK`."""
        return dict(self.state.best.steps)

    @property
    def cautions(self) -> list[str]:
        """Tasks that this training shows too little, or much more often than others, in words."""
        if self.steps == 0:
            return []
        return cautions(self.batches, self.steps * self.options.accumulate, self.options.schedule.name)

    def stop(self, reason: str) -> None:
        """Ends training after the step that is under way, evaluated and saved, as if it were the last one.

        Args:
            reason: Why, for the log and the terminal.
        """
        self.state.stopped = self.state.stopped or reason

    def fit(self) -> dict[str, Evaluation]:
        """Trains to the end, evaluates and saves.

        Returns:
            The last evaluation, by task.

        Raises:
            Interrupted: Ctrl-C; everything is saved.
            TrainingError: A loss is not finite, too many images cannot be read, a checkpoint cannot be written.
        """
        new = not self.run.recipe_file.is_file()
        if new:
            self.run.create(self.recipe, self.assembly.infos)
        with self.run.writing(), log_to(self.run.log_file):
            if new:
                write_learned(self.run.path, self.learned)
            self._checkpoints.check_current()
            try:
                with self._observed(), self._interruption.listening():
                    self._fit()
            except BaseException as error:
                LOG.error("stopped at step %d: %s", self.step, error)
                raise
        return self.evaluations.latest

    def run_steps(self) -> None:
        """Trains to the end and does nothing else: no evaluation, no checkpoint, no run. Observers are called."""
        with self._observed():
            self._call.training_started(trainer=self)
            deque(self._each_step(), maxlen=0)

    def train_step(self, group: list[dict[str, Batch]]) -> None:
        """One step of the optimiser, from the batches that it accumulates.

        Raises:
            TrainingError: A loss or a gradient is not finite, or too many images cannot be read; the parameters are as
                they were.
        """
        self._step.begin(self.step)
        self._call.step_started(step=self.step, batches=group)
        log = self._gradient_log
        measurement = None if log is None else log.measurement(self.step + 1)
        passes = self._step(self.step, group, measurement)
        self.state.step += 1
        for terms in passes:
            self.state.meter.add(terms)
        if log is not None and measurement is not None:
            log.write(self.step, measurement)
        self._call.step_ended(step=self.step, losses=mean_terms(passes, self.model.tasks))
        if self.step % self.options.log_every == 0 or self.step == self.steps:
            gradients = {} if log is None else log.take()
            self._call.metrics_logged(step=self.step, values=self._report.values() | gradients)

    def grouped_batches(self) -> Iterator[list[dict[str, Batch]]]:
        """The batches that each remaining step accumulates, by task."""
        size, pin_memory = self.options.accumulate, self.parts.device.type == "cuda"
        batches = self.batches.batches(self.step * size, self.steps * size, self.options.workers, pin_memory)
        while group := self._next(batches, size):
            yield group

    def _next(self, batches: Iterator[dict[str, Batch]], size: int) -> list[dict[str, Batch]]:
        # What is read here is read again if training ends now.
        with self._interruption.at_once():
            return list(islice(batches, size))

    def on_device(self, batches: Mapping[str, Batch]) -> dict[str, Batch]:
        """The batches, by task, of which a task knows something, on the model's device."""
        return self._step.on_device(batches)

    def _fit(self) -> None:
        try:
            self._begin()
            for _ in self._each_step():
                self._evaluate_and_save()
            self._end()
        except StopNow:
            self._save_what_is_not()
            account(self.batches, self.step * self.options.accumulate)
            raise Interrupted(
                f"stopped at step {self.step} of {self.steps}; everything is saved. Go on with: "
                f"mtframe train --resume {pasted(self.run.path)}"
            ) from None
        except StarvedError as error:
            self._save_what_is_not()
            raise StarvedError(
                f"{error}. Stopped at step {self.step} of {self.steps}; everything is saved. Go on with: "
                f"mtframe train --resume {pasted(self.run.path)} train.workers=0"
            ) from None

    def _save_what_is_not(self) -> None:
        """Saves the steps since the last checkpoint, at a moment that lies between two of them."""
        if self._saved != self.step:
            self._save()

    def _begin(self) -> None:
        for line in self.parts.loaded.lines() if self.parts.loaded is not None else ():
            LOG.info(line)
        self.run.keep_changes()
        for line in self.run.announced_changes():
            LOG.info(line)
        for name, why in self.forgotten.items():
            LOG.warning("%s is forgotten, and the next evaluation takes its place: %s", name, why)
        for task, why in self.evaluations.unevaluated.items():
            LOG.warning("task %s: what becomes of it is not measured: %s", task, why)
        if self.steps == 0:
            LOG.info("train.steps is 0: nothing is trained, and the run has the weights that it was given")
        else:
            LOG.info(
                "training %s from step %d to %d in %s", ", ".join(self.recipe.trained), self.step, self.steps,
                self.options.precision,
            )  # fmt: skip
        for line in described(self.model, self.options):
            LOG.info("group %s", line)
        if self.steps > 0:
            announce(self.batches, self.steps * self.options.accumulate)
        for text in self.cautions:
            LOG.warning("%s", text)
        log_surveys(self.surveys, self.run.path / "plots" / "labels.png")
        if self._gradient_log is not None:
            self._gradient_log.begin(self.run.gradients_csv, self.step)
        self._call.training_started(trainer=self)
        if self.step == 0:
            # A run that is killed at any time can be resumed.
            self._save()
        if self.evaluations.due:
            # Of a run that begins with what is to be kept, or goes on after an evaluation that was broken off.
            self.evaluations.evaluate()
            self._save()

    def _each_step(self) -> Iterator[None]:
        """Trains the remaining steps, unless training is stopped; after each it is the caller's turn."""
        self.model.train()
        self._report.restart()
        # A run may go on only for the evaluation that it was stopped in.
        done = self.step == self.steps or (self.stopped is not None and self.step > 0)
        groups = iter(()) if done else self.grouped_batches()
        for group in groups:
            self.train_step(group)
            yield
            if self.stopped is not None:
                return

    def _evaluate_and_save(self) -> None:
        every = self.options.save_every_steps
        if self.evaluations.due:
            # Before too: a broken validation file or a full disk then loses no training.
            self._save()
            self.evaluations.evaluate()
            self._report.restart()
            self._save()
        elif every is not None and self.step % every == 0:
            self._save()

    def _end(self) -> None:
        if self.stopped is not None:
            LOG.info("ended at step %d of %d: %s", self.step, self.steps, self.stopped)
        if self.step > 0:
            account(self.batches, self.step * self.options.accumulate)
        balancer = self.parts.balancer
        if isinstance(balancer, CountsFailures) and balancer.failures:
            LOG.warning(
                "balancer %s: its solver did not converge %d times", self.recipe.balancer.name, balancer.failures
            )
        if self._gradient_log is not None:
            self._gradient_log.end()

    def _save(self) -> None:
        path = self._checkpoints.save_last(self.evaluations.thresholds)
        self._saved = self.step
        self._call.checkpoint_saved(path=path, step=self.step)

    def _kept(self) -> str:
        """What of a training that ends in the middle of a step is not lost."""
        return (
            f". What step {self._saved} left is kept: mtframe train --resume {pasted(self.run.path)}"
            if self._saved >= 0
            else ""
        )

    @contextmanager
    def _observed(self) -> Iterator[None]:
        """Tells observers how a training ends."""
        error: BaseException | None = None
        try:
            with memory_explained(self.recipe, self.parts.device, self.state, self._kept):
                yield
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._call.training_ended(error=error)
