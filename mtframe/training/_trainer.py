from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from mtframe.assembly import Assembly, observe
from mtframe.data import Batch
from mtframe.device import lay_out_channels_last, pick_device
from mtframe.errors import CheckpointError, MtframeError, RecipeError, TrainingError
from mtframe.evaluation import Evaluation, evaluate, finite, mean_relative_gain
from mtframe.gradients import GradientEngine
from mtframe.hooks import Hooks
from mtframe.registry import name_of
from mtframe.run import RunFolder, check_fit, write_text

from ._distillation import Distillation, evaluable
from ._exposure import account, announce, cautions
from ._gradient_log import GradientLog
from ._log import LOG, LossMeter, open_log
from ._meetings import Meetings, check_comparable
from ._optim import make_average, make_optimizer, make_scheduler
from ._start import check_trained, freeze_parts, start_model
from ._step import training_step


class Interrupted(MtframeError):
    """Training was stopped by Ctrl-C (or SIGTERM) after saving. Exit code 130, as shells expect."""

    exit_code = 130


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
        RecipeError: To be resumed, but it was finished, or made of another run without training; or what is frozen
            leaves a task nothing to train.
        CheckpointError: To be resumed, but there is no checkpoint, or it is of another architecture.

    Attributes:
        model: The model that is trained.
        steps: Number of steps of the whole training.
        step: Steps done.
        stopped: Why training ended before its last step; None if it did not.
        history: The evaluations so far: `step`, `gain` (mean relative gain) and every metric's values by task.
        images_per_step: Images of all tasks that one step sees; the mean where steps differ.
        loaded: What was loaded from `train.start`; None if nothing is named, or of a run that is resumed.
        evaluated: The tasks that are scored: those that are trained, and those that distillation keeps.
        unevaluated: Of the latter, by name, why one cannot be.
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
        self.recipe = assembly.recipe
        self.options = options = assembly.recipe.train
        self.run = run if isinstance(run, RunFolder) else RunFolder(run)
        if not isinstance(run, RunFolder) and not resume:
            self.run.check_new()
        self.hooks = observe(self.recipe) if hooks is None else hooks
        self.device = pick_device(options.device)
        torch.manual_seed(options.seed)
        self.model, self.loaded = start_model(assembly, restoring=resume)
        freeze_parts(self.model, options.freeze)
        if options.freeze:
            check_trained(self.model, self.recipe.trained)
        self.distillation = Distillation(assembly, self.model) if options.distil is not None else None
        for network in (self.model, *([self.distillation.teacher] if self.distillation else ())):
            network.to(self.device)
            if options.channels_last:
                lay_out_channels_last(network)
        self.balancer: Any = assembly.balancer()
        if isinstance(self.balancer, nn.Module):
            self.balancer.to(self.device)
        self._engine = GradientEngine(self.model, exact=options.exact_gradients)
        self.batches = assembly.batches()
        per_epoch = self.batches.schedule.steps_per_epoch
        self._gradient_log: GradientLog | None = None
        if options.gradients_every is not None:
            meetings = Meetings(self.batches, options.accumulate)
            check_comparable(self._engine, meetings, "train.gradients_every")
            self._gradient_log = GradientLog(self._engine, meetings, options.gradients_every, options.log_every)
        self.steps_per_epoch = math.ceil(per_epoch / options.accumulate)
        self.steps = options.steps or options.epochs * self.steps_per_epoch
        images = sum(n * self._batch_size(task) for task, n in self.batches.schedule.draws(per_epoch).items())
        self.images_per_step = options.accumulate * images / per_epoch
        self.optimizer = make_optimizer(self.model, self.balancer, options)
        self.scheduler = make_scheduler(self.optimizer, options, self.steps)
        self.average = make_average(self.model, options)
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.stopped: str | None = None
        self._best: dict[str, dict[str, float]] = {"scores": {}, "tasks": {}, "steps": {}}
        self._meter = LossMeter()
        self._unreadable: dict[str, None] = {}
        self._unlabelled = {
            task: lender for task in self.recipe.trained if (lender := self.recipe.tasks[task].images) is not None
        }
        self._interrupted = False
        self._since = (time.monotonic(), 0)
        if resume:
            self._restore()
        self.evaluated, self.unevaluated = self._evaluable()
        # A run that goes on has not seen what came before.
        self._labels_due = self.step + self.steps_per_epoch
        self.hooks.call.model_assembled(model=self.model, recipe=self.recipe.model_copy(deep=True))

    @property
    def evaluated_model(self) -> nn.Module:
        """What is evaluated and saved for use: the averaged weights, or the model where averaging is off."""
        return self.model if self.average is None else self.average.module

    @classmethod
    def resume(
        cls, path: str | os.PathLike[str], hooks: Hooks | None = None, *, components: Sequence[Any] = ()
    ) -> Trainer:
        """The trainer of a run that was stopped, where its last checkpoint left it.

        Args:
            path: The run's folder.
            hooks: Observers; those that its recipe names if None.
            components: The classes that its recipe was given from Python.

        Raises:
            RecipeError: No run there, a component is missing, or it was trained to its end or not at all.
            CheckpointError: There is no checkpoint, or it is of another architecture.
        """
        for component in components:
            name_of(component)
        run = RunFolder.open(path)
        return cls(Assembly(run.checked_recipe(training=True), run.infos()), run, hooks, resume=True)

    @property
    def cautions(self) -> list[str]:
        """Tasks that this training shows too little, or much more often than others, in words."""
        return cautions(self.batches, self.steps * self.options.accumulate, self.options.schedule.name)

    @property
    def best_steps(self) -> dict[str, int]:
        """By name of a checkpoint, `best` or `best_TASK`, the step that it is of."""
        return {name: int(step) for name, step in self._best["steps"].items()}

    def stop(self, reason: str) -> None:
        """Ends training after the step that is under way, evaluated and saved, as if it were the last one.

        Args:
            reason: Why, for the log and the terminal.
        """
        self.stopped = self.stopped or reason

    def fit(self) -> dict[str, Evaluation]:
        """Trains to the end.

        Returns:
            The last evaluation, by task.

        Raises:
            Interrupted: Ctrl-C; everything is saved.
            TrainingError: A loss is not finite, too many images cannot be read, a checkpoint cannot be written.
        """
        if not self.run.recipe_file.is_file():
            RunFolder.create(self.run.path, self.recipe, self.assembly.infos)
        handler = open_log(self.run.log_file)
        error: BaseException | None = None
        try:
            with self._signals():
                return self._fit()
        except RuntimeError as caught:
            error = caught
            if not (isinstance(caught, torch.OutOfMemoryError) or "can't allocate memory" in str(caught)):
                raise
            sizes = ", ".join(f"{n}: {t.batch_size} of {t.size} pixels" for n, t in self.recipe.tasks.items())
            error = TrainingError(
                f"out of memory on {self.device} at step {self.step + 1}. Lower a task's batch_size or size ({sizes}), "
                "or choose a smaller backbone; train.accumulate makes up for small batches"
            )
            raise error from caught
        except BaseException as caught:
            error = caught
            raise
        finally:
            self.hooks.call.training_ended(error=error)
            if error is not None:
                LOG.error("stopped at step %d: %s", self.step, error)
            LOG.removeHandler(handler)
            handler.close()

    def grouped_batches(self) -> Iterator[list[dict[str, Batch]]]:
        """The batches that each remaining step accumulates, by task."""
        size = self.options.accumulate
        batches = self.batches.batches(
            self.step * size, self.steps * size, self.options.workers, pin_memory=self.device.type == "cuda"
        )
        while group := list(islice(batches, size)):
            yield group

    def on_device(self, batches: dict[str, Batch]) -> dict[str, Batch]:
        """Of batches by task what has labels, on the model's device."""
        moved = {task: batch.to(self.device) for task, batch in batches.items() if batch.targets}
        for batch in moved.values():
            batch.images = batch.images.contiguous(memory_format=self._memory_format)
        return moved

    def train_step(self, group: list[dict[str, Batch]]) -> None:
        """One step of the optimiser, from the batches that it accumulates.

        Raises:
            TrainingError: A loss or a gradient is not finite; the model is as it was.
        """
        options = self.options
        # Dropout and stochastic depth draw from it; seeding every step makes a resumed run draw the same.
        torch.manual_seed(options.seed * 1_000_003 + self.step)
        self.scheduler.step(self.step)
        for loss in self.model.losses.values():
            set_progress: Callable[[float], None] | None = getattr(loss, "set_progress", None)
            if set_progress is not None:
                set_progress(self.step / self.steps)
        terms: dict[str, dict[str, Tensor]] = {}
        measurement = None if self._gradient_log is None else self._gradient_log.measurement(self.step + 1)
        for batches in group:
            self._count_unreadable(batches)
            if self._unlabelled:
                self._look_for_labels(batches)
            on_device = self.on_device(batches)
            if not on_device:
                continue
            terms = training_step(
                self.model, on_device, self.balancer, precision=options.precision, divide=len(group),
                at=options.balance_at, engine=self._engine, measurement=measurement, distillation=self.distillation,
            )  # fmt: skip
            for task, named in terms.items():
                for name, value in named.items():
                    self._check_finite(f"task {task}: loss {name!r}", value)
            self._meter.add(terms)
        trained = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(p.grad for p in trained if p.grad is not None)
        # A finite loss can have an infinite gradient, which would leave no finite weight.
        if not torch.isfinite(norm):
            self._check_finite(f"the norm of the gradient of {self._not_finite(terms)}", norm)
        if options.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(trained, options.clip_grad, norm)
        if measurement is not None:
            measurement.before_update()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, step=self.step)
        self.step += 1
        if self._gradient_log is not None and measurement is not None:
            self._gradient_log.write(self.step, measurement)
        self.hooks.call.step_ended(step=self.step, losses=terms)
        if self.step % options.log_every == 0 or self.step == self.steps:
            self._log_metrics()

    def _fit(self) -> dict[str, Evaluation]:
        for line in self.loaded.lines() if self.loaded is not None else ():
            LOG.info(line)
        for task, why in self.unevaluated.items():
            LOG.warning("task %s: what becomes of it is not measured: %s", task, why)
        LOG.info("training %s from step %d to %d", ", ".join(self.recipe.trained), self.step, self.steps)
        announce(self.batches, self.steps * self.options.accumulate)
        for text in self.cautions:
            LOG.warning("%s", text)
        if self._gradient_log is not None:
            self._gradient_log.begin(self.run.gradients_csv, self.step)
        self.hooks.call.training_started(trainer=self)
        if self.step == 0:
            # A run that is killed at any time can be resumed.
            self._save()
        evaluations: dict[str, Evaluation] = {}
        if self._evaluation_due():
            # Resumed after a step whose evaluation was broken off.
            evaluations = self._evaluate()
            self._save()
        self.model.train()
        self._since = (time.monotonic(), self.step)
        for batches in self.grouped_batches():
            self.train_step(batches)
            if self._evaluation_due():
                # Before too: a broken validation file or a full disk then loses no training.
                self._save()
                evaluations = self._evaluate()
                self._save()
            elif self._interrupted or self._saving_due():
                self._save()
            if self.stopped is not None:
                LOG.info("ended at step %d of %d: %s", self.step, self.steps, self.stopped)
                break
            if self._interrupted and self.step < self.steps:
                account(self.batches, self.step * self.options.accumulate)
                raise Interrupted(
                    f"stopped at step {self.step} of {self.steps}; everything is saved. Go on with: "
                    f"mtframe train --resume {self.run.path}"
                )
        account(self.batches, self.step * self.options.accumulate)
        if failures := getattr(self.balancer, "failures", 0):
            LOG.warning("balancer %s: its solver did not converge %d times", self.recipe.balancer.name, failures)
        if self._gradient_log is not None:
            self._gradient_log.end()
        return evaluations

    def _seen(self) -> dict[str, float]:
        """By task, how often training has shown each of its images so far."""
        return self.batches.epochs(self.step * self.options.accumulate)

    def _batch_size(self, task: str) -> int:
        return self.batches.sources[task].batch_size

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.options.channels_last else torch.contiguous_format

    def _check_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            kept = self.run.checkpoints / "last"
            raise TrainingError(
                f"{what} is {value.item()} at step {self.step + 1}."
                + (f" The last checkpoint is {kept}." if kept.is_dir() else "")
                + f" Try a lower train.lr (now {self.options.lr}), a smaller train.clip_grad or train.precision=fp32"
            )

    def _not_finite(self, terms: dict[str, dict[str, Tensor]]) -> str:
        """Whose gradients are not finite, and what the losses were."""
        parts = {
            task: [*self.model.heads[task].parameters(), *self.model.losses[task].parameters()]
            for task in self.model.tasks
        }
        tasks = [
            task for task, own in parts.items() if any(p.grad is not None and not p.grad.isfinite().all() for p in own)
        ]
        losses = ", ".join(f"{task} {sum(named.values()):.4g}" for task, named in terms.items())
        whose = f"task {', '.join(tasks)}" if tasks else "what the tasks share"
        return f"{whose} (losses: {losses})"

    def _count_unreadable(self, batches: dict[str, Batch]) -> None:
        for task, batch in batches.items():
            for reason in batch.skipped:
                if reason not in self._unreadable:
                    self._unreadable[reason] = None
                    LOG.warning("task %s: skipped an unreadable image: %s", task, reason)
        if len(self._unreadable) > self.options.max_unreadable:
            raise TrainingError(
                f"{len(self._unreadable)} images cannot be read, more than train.max_unreadable="
                f"{self.options.max_unreadable}:\n  " + "\n  ".join(list(self._unreadable)[:10])
            )

    def _look_for_labels(self, batches: dict[str, Batch]) -> None:
        """Stops if a whole epoch passes without one label of a task that borrows its images."""
        for batch in batches.values():
            for task in self._unlabelled.keys() & batch.targets.keys():
                del self._unlabelled[task]
        if self._unlabelled and self.step >= self._labels_due:
            task, lender = next(iter(self._unlabelled.items()))
            raise TrainingError(
                f"tasks.{task}.dataset has no label for any image of task {lender!r}, whose images it uses. It finds "
                f"them by their paths below root: are both roots the same folder, and the paths complete?"
            )

    def _log_metrics(self) -> None:
        now, (then, at) = time.monotonic(), self._since
        self._since = (now, self.step)
        rate = (self.step - at) * self.images_per_step / max(now - then, 1e-9)
        values = {
            "epoch": self.step / self.steps_per_epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": rate,
            **{f"epochs_{task}": seen for task, seen in self._seen().items()},
        }
        gradients = {} if self._gradient_log is None else self._gradient_log.take()
        self.hooks.call.metrics_logged(step=self.step, values=values | self._meter.take() | gradients)

    def _evaluation_due(self) -> bool:
        every = self.options.evaluate_every
        due = every is not None and self.step % max(1, round(every * self.steps_per_epoch)) == 0
        done = self.history and self.history[-1]["step"] == self.step
        last = self.step == self.steps or self.stopped is not None
        if self.step == 0:
            # What tasks that are kept are measured against.
            return self.distillation is not None and not done
        return (due or last) and not done

    def _evaluable(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """The tasks that are scored, and of those that should be why one cannot."""
        if self.distillation is None:
            return self.recipe.trained, {}
        if self.history:
            # As it began: what is compared must be there to the end.
            return tuple(self.history[-1]["tasks"]), {}
        able, why = evaluable(self.assembly)
        return tuple(task for task in self.assembly.tasks if task in (*able, *self.recipe.trained)), why

    def _saving_due(self) -> bool:
        every = self.options.save_every_steps
        return every is not None and self.step % every == 0

    def _evaluate(self) -> dict[str, Evaluation]:
        model: Any = self.evaluated_model
        evaluations = evaluate(model, self.assembly, self.evaluated, "val")
        for task, evaluation in evaluations.items():
            for reason in evaluation.skipped:
                LOG.warning("task %s: evaluation skipped an unreadable image: %s", task, reason)
        self._remember(evaluations)
        self._since = (time.monotonic(), self.step)
        return evaluations

    def _remember(self, evaluations: dict[str, Evaluation]) -> None:
        """Notes an evaluation and saves the checkpoints that are the best so far.

        `best_TASK` follows the task's primary score. `best` follows the mean relative gain over the tasks, each
        relative to the best it has reached so far in this run (see docs/training.md).
        """
        scores = {task: result.score for task, result in evaluations.items()}
        higher = {task: result.higher_is_better for task, result in evaluations.items()}
        tops = self._best["tasks"]
        for task, score in scores.items():
            if task not in tops or _better(score, tops[task], higher[task]):
                self._save_best(f"best_{task}")
                tops[task] = score
        gain = mean_relative_gain(scores, tops, higher)
        # What no step has trained yields to anything: it only says what tasks that are kept were like.
        untrained = self._best["steps"].get("best", 0) == 0
        if untrained or gain > mean_relative_gain(self._best["scores"], tops, higher):
            self._save_best("best")
            self._best["scores"] = scores
        values = {task: result.values for task, result in evaluations.items()}
        self.history.append({"step": self.step, "gain": gain, "epochs": self._seen(), "tasks": values})
        write_text(
            self.run.metrics_json,
            json.dumps(finite({"evaluations": self.history, "best": self._best}), indent=2),
        )
        LOG.info("step %d: %s", self.step, ", ".join(f"{task} {score:.4f}" for task, score in scores.items()))
        self.hooks.call.evaluation_ended(step=self.step, metrics=deepcopy(values), scores=dict(scores))

    def _save_best(self, name: str) -> None:
        self._best["steps"][name] = self.step
        path = self.run.save_checkpoint(name, self.evaluated_model.state_dict())
        self.hooks.call.checkpoint_saved(path=path, step=self.step)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "balancer": self.balancer.state_dict() if hasattr(self.balancer, "state_dict") else {},
            "history": self.history,
            "best": self._best,
            "meter": self._meter.state_dict(),
            "stopped": self.stopped,
            "teacher": self.distillation.digest if self.distillation is not None else None,
        }
        path = self.run.save_checkpoint("last", self.evaluated_model.state_dict(), state)
        self.hooks.call.checkpoint_saved(path=path, step=self.step)

    def _restore(self) -> None:
        state = self.run.load_state()
        if state["history"] and state["history"][-1]["step"] >= self.steps:
            raise RecipeError(f"{self.run.path}: already trained to its end, step {state['step']} of {self.steps}")
        if state["stopped"] is not None:
            raise RecipeError(f"{self.run.path}: was ended at step {state['step']} of {self.steps}: {state['stopped']}")
        if self.distillation is not None and state["teacher"] != self.distillation.digest:
            raise CheckpointError(
                f"train.start: the weights of {self.options.start} are not those that this run began with, and what is "
                "kept would be something else"
            )
        check_fit(self.model, state["model"], self.run.checkpoints / "last")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if hasattr(self.balancer, "load_state_dict"):
            self.balancer.load_state_dict(state["balancer"])
        if self.average is not None:
            self.run.load_weights(self.average.module, "last")
        self.step = state["step"]
        self.history = state["history"]
        self._best = state["best"]
        self._meter.load_state_dict(state["meter"], self.device)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C or SIGTERM ends training after the step; a second Ctrl-C at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            # Not a second SIGTERM: `timeout` sends one to the process and one to its group.
            if self._interrupted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._interrupted = True

        previous: dict[int, Callable[..., Any] | int | None] = {
            number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _better(score: float, top: float, higher_is_better: bool) -> bool:
    """Whether a score beats the best so far; what could not be resolved (NaN) beats nothing."""
    if math.isnan(score) or math.isnan(top):
        return math.isnan(top) and not math.isnan(score)
    return score > top if higher_is_better else score < top
