"""What a training is made of, built from a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from mtframe.assembly import Assembly
from mtframe.data import MixedBatches
from mtframe.device import lay_out_channels_last, pick_device, training_precision
from mtframe.gradients import AnyBalancer, GradientEngine
from mtframe.model import MultiTaskModel
from mtframe.recipe import TrainOptions

from ._demands import check_demands, check_step
from ._distillation import Distillation
from ._freezing import Thawing, check_trained, freeze_parts
from ._groups import settings_of
from ._loaded import Loaded
from ._optim import make_average, make_optimizer, make_scheduler
from ._start import start_model


@dataclass(frozen=True, slots=True)
class Length:
    """How long a training is.

    Attributes:
        steps: Of the whole training.
        steps_per_epoch: Steps that show every image of every task at least once.
        images_per_step: Images of all tasks that one step sees; the mean where steps differ.
    """

    steps: int
    steps_per_epoch: int
    images_per_step: float

    @classmethod
    def of(cls, batches: MixedBatches, options: TrainOptions) -> Length:
        """The length that a recipe asks for, in steps or in epochs."""
        per_epoch = batches.schedule.steps_per_epoch
        images = sum(n * batches.sources[task].batch_size for task, n in batches.schedule.draws(per_epoch).items())
        steps_per_epoch = math.ceil(per_epoch / options.accumulate)
        steps = options.epochs * steps_per_epoch if options.steps is None else options.steps
        return cls(steps, steps_per_epoch, options.accumulate * images / per_epoch)


@dataclass(frozen=True, slots=True)
class TrainingParts:
    """What a training is made of.

    Attributes:
        model: The model that is trained, on its device.
        loaded: What was loaded from `train.start`; None if nothing is named, or of a resumed run.
        distillation: What keeps tasks that are not trained; None for nothing.
        balancer: Makes one loss of the tasks' losses, or weighs their gradients.
        engine: Runs the model's backward passes.
        batches: What every step trains on.
        length: How long the training is.
        optimizer: Of the parameters of model and balancer.
        scheduler: Sets the learning rate of each step.
        average: The moving average of the weights; None for none.
        thawing: What is trained only after some steps.
    """

    model: MultiTaskModel
    loaded: Loaded | None
    distillation: Distillation | None
    balancer: AnyBalancer
    engine: GradientEngine
    batches: MixedBatches
    length: Length
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    average: ModelEmaV3 | None
    thawing: Thawing

    @property
    def device(self) -> torch.device:
        """Where the training runs."""
        return self.model.mean.device

    @property
    def evaluated_model(self) -> nn.Module:
        """What is evaluated and saved for use: the averaged weights, or the model where averaging is off."""
        return self.model if self.average is None else self.average.module


def build_parts(assembly: Assembly, *, restoring: bool) -> TrainingParts:
    """Builds what a recipe's training is made of.

    Args:
        assembly: The recipe's parts. Of its recipe, `precision: auto` becomes what it stands for here.
        restoring: All weights will be replaced by those of a resumed run.

    Raises:
        MtframeError: A part cannot be built; what is frozen leaves a task nothing to train; or a step is beyond this
            machine.
    """
    check_demands(assembly.recipe)
    device = pick_device(assembly.recipe.train.device)
    options = assembly.recipe.train
    torch.manual_seed(options.seed)
    model, loaded = start_model(assembly, restoring=restoring)
    freeze_parts(model, options.freeze)
    if options.freeze:
        check_trained(model, assembly.recipe.trained)
    check_step(assembly.recipe, model)
    options = _settled(assembly, model, device)
    distillation = Distillation(assembly, model) if options.distil is not None else None
    for network in (model, *([distillation.teacher] if distillation else ())):
        network.to(device)
        if options.channels_last:
            lay_out_channels_last(network)
    balancer = assembly.balancer()
    if isinstance(balancer, nn.Module):
        balancer.to(device)
    batches = assembly.batches()
    length = Length.of(batches, options)
    batches.steps = length.steps * options.accumulate
    optimizer = make_optimizer(model, balancer, options)
    thawing = Thawing(model, {name: setting.frozen_steps for name, setting in settings_of(model, options).items()})
    thawing.check(model, assembly.recipe.trained, length.steps)
    scheduler = make_scheduler(optimizer, options, length.steps)
    return TrainingParts(
        model, loaded, distillation, balancer, GradientEngine(model, exact=options.exact_gradients), batches, length,
        optimizer, scheduler, make_average(model, options), thawing,
    )  # fmt: skip


def _settled(assembly: Assembly, model: MultiTaskModel, device: torch.device) -> TrainOptions:
    """The options of training, with nothing left to this machine: so a run goes on elsewhere as it began."""
    train = assembly.recipe.train
    precision = training_precision(model.sharing, train.precision, device)
    train = train.model_copy(update={"precision": precision})
    assembly.recipe = assembly.recipe.model_copy(update={"train": train})
    return train
