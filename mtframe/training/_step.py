"""One step of the optimiser, from its batches to its update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from mtframe.data import Batch
from mtframe.gradients import AnyBalancer, GradientEngine, GradientObserver, GradientStep, Measurement, Place
from mtframe.kinds import FollowsProgress
from mtframe.model import MultiTaskModel
from mtframe.recipe import TrainOptions

from ._distillation import Distillation
from ._finite import FiniteCheck
from ._freezing import Thawing
from ._inputs import ModelInputs
from ._parts import TrainingParts
from ._terms import Terms


@dataclass(frozen=True, slots=True)
class Step:
    """What one step needs; calling it trains one.

    All that happens in step n is a function of the recipe, n and its batches, so that a resumed run draws what it
    would have drawn.

    Attributes:
        model: What is trained, in training mode.
        balancer: Makes one loss of the tasks' losses, or weighs their gradients.
        engine: Of the model: runs its backward passes.
        optimizer: Of the parameters of model and balancer.
        scheduler: Sets the learning rate of each step.
        thawing: What is trained only after some steps.
        following: Losses whose strength changes during training.
        finite: Stops a training whose losses or gradient are not finite.
        average: The moving average of the weights; None for none.
        distillation: Adds losses of tasks that are not trained but kept; None for none.
        steps: Of the whole training.
        seed: Of what model and losses draw.
        precision: `bf16` (autocast) or `fp32`.
        balance_at: Which gradients a balancer that weighs them gets.
        clip_grad: Largest norm of the gradient; None for no limit.
        memory_format: How images are laid out.
    """

    model: MultiTaskModel
    balancer: AnyBalancer
    engine: GradientEngine
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    thawing: Thawing
    following: tuple[FollowsProgress, ...]
    finite: FiniteCheck
    average: ModelEmaV3 | None
    distillation: Distillation | None
    steps: int
    seed: int
    precision: str
    balance_at: Place
    clip_grad: float | None
    memory_format: torch.memory_format

    @classmethod
    def of(cls, parts: TrainingParts, options: TrainOptions, finite: FiniteCheck) -> Step:
        """The step of a training with these parts, as its recipe says."""
        return cls(
            parts.model, parts.balancer, parts.engine, parts.optimizer, parts.scheduler, parts.thawing,
            following=tuple(loss for loss in parts.model.losses.values() if isinstance(loss, FollowsProgress)),
            finite=finite, average=parts.average, distillation=parts.distillation, steps=parts.length.steps,
            seed=options.seed, precision=options.precision, balance_at=options.balance_at, clip_grad=options.clip_grad,
            memory_format=torch.channels_last if options.channels_last else torch.contiguous_format,
        )  # fmt: skip

    def begin(self, number: int) -> None:
        """Sets what depends on nothing but the step's number, counted from 0."""
        self.scheduler.step(number)
        self.thawing.begin(number)
        for loss in self.following:
            loss.set_progress(number / self.steps)

    def __call__(
        self, number: int, group: Sequence[Mapping[str, Batch]], measurement: Measurement | None = None
    ) -> list[Terms]:
        """Trains one step, which has begun.

        Args:
            number: Of the step, counted from 0.
            group: The batches that it accumulates, each by task.
            measurement: Takes the tasks' gradients as they come by, and what becomes of them.

        Returns:
            The loss terms of each batch; none of a batch of which no task knows anything.

        Raises:
            TrainingError: A loss or the gradient is not finite; the parameters are as they were.
        """
        # Dropout and stochastic depth draw from it; seeding every step makes a resumed run draw the same.
        torch.manual_seed(self.seed * 1_000_003 + number)
        with self.engine.step(self.balancer, at=self.balance_at, divide=len(group), observer=measurement) as gradients:
            passes = [
                one_pass(self.model, batches, gradients, self.distillation, self.precision)
                for batches in map(self.on_device, group)
                if batches
            ]
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)
        self.finite.check(number + 1, passes, norm)
        if self.clip_grad is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_grad, norm)
        if measurement is not None:
            measurement.before_update()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, step=number)
        return passes

    def on_device(self, batches: Mapping[str, Batch]) -> dict[str, Batch]:
        """The batches of which a task knows something, on the model's device."""
        moved = {task: batch.to(self.model.mean.device) for task, batch in batches.items() if batch.targets}
        for batch in moved.values():
            batch.images = batch.images.contiguous(memory_format=self.memory_format)
        return moved


def forward_backward(
    model: MultiTaskModel,
    batches: Mapping[str, Batch],
    balancer: AnyBalancer,
    *,
    engine: GradientEngine | None = None,
    distillation: Distillation | None = None,
    precision: str = "fp32",
    at: Place = "parameters",
    observer: GradientObserver | None = None,
) -> Terms:
    """Adds the gradient of one batch of each task, balanced, to the parameters' `.grad`.

    Args:
        model: In training mode, on the batches' device.
        batches: By task; of each a task at least knows something.
        balancer: Makes one loss of the tasks' losses, or weighs their gradients.
        engine: The model's, kept from step to step; a new one if None.
        distillation: Adds losses of tasks that are not trained but kept.
        precision: `bf16` (autocast) or `fp32`.
        at: Which gradients a balancer that weighs them gets, see `GradientEngine.backward`.
        observer: Is handed each task's gradient and weight, of batches of several tasks.

    Returns:
        The loss terms.
    """
    with (engine or GradientEngine(model)).step(balancer, at=at, observer=observer) as gradients:
        return one_pass(model, batches, gradients, distillation, precision)


def one_pass(
    model: MultiTaskModel,
    batches: Mapping[str, Batch],
    gradients: GradientStep,
    distillation: Distillation | None,
    precision: str,
) -> Terms:
    """One of the passes of a step, whose gradients it takes; arguments and result as of `forward_backward`."""
    autocast = torch.autocast(model.mean.device.type, torch.bfloat16, enabled=precision == "bf16")
    inputs, answers = ModelInputs.of(batches), dict[str, dict[str, Tensor]]()
    if distillation is not None:
        with autocast:
            inputs, answers = distillation.extended(inputs)
    terms: Terms = {}

    def forward() -> dict[str, Tensor]:
        with autocast:
            outputs = model(inputs.images, inputs.lenders)
            named = {task: model.loss(task, outputs[task], targets) for task, targets in inputs.targets.items()}
            if distillation is not None:
                named |= distillation.losses(outputs, answers)
            # In the order in which a balancer knows them.
            terms.update({task: named[task] for task in model.tasks if task in named})
            return {task: torch.stack(list(named.values())).sum() for task, named in terms.items()}

    gradients.backward(inputs.images, inputs.lenders, forward)
    return {task: {name: term.detach() for name, term in named.items()} for task, named in terms.items()}
