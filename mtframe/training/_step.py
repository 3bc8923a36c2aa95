"""One forward and backward pass over the batches of all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mtframe.data import Batch
from mtframe.gradients import GradientEngine, Measurement
from mtframe.kinds import Balancer, GradientBalancer
from mtframe.model import MultiTaskModel

from ._distillation import Distillation


def taken_apart(
    batches: Mapping[str, Batch],
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, dict[str, Tensor]]]:
    """What a model and its losses are given of a step's batches, of which each is known to a task at least.

    Returns:
        Images by the first task that knows something of them; the other tasks that do, each with that one; targets by
        task.
    """
    images, lenders, targets = dict[str, Tensor](), dict[str, str](), dict[str, dict[str, Tensor]]()
    for batch in batches.values():
        owner, *others = batch.targets
        images[owner] = batch.images
        lenders |= dict.fromkeys(others, owner)
        targets |= batch.targets
    return images, lenders, targets


def training_step(
    model: MultiTaskModel,
    batches: Mapping[str, Batch],
    balancer: Balancer | GradientBalancer,
    *,
    precision: str = "fp32",
    divide: int = 1,
    at: Literal["parameters", "maps"] = "parameters",
    engine: GradientEngine | None = None,
    measurement: Measurement | None = None,
    distillation: Distillation | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Adds the gradient of the balanced loss, or the balanced gradient, to the parameters' `.grad`.

    Args:
        model: In training mode, on the batches' device.
        batches: Batch by task.
        balancer: Makes one loss of the tasks' losses, or weighs their gradients.
        precision: `bf16` (autocast) or `fp32`.
        divide: The loss is divided by so much: number of batches that an optimiser step accumulates.
        at: Which gradients a balancer that weighs them gets, see `GradientEngine.backward`.
        engine: For a balancer that weighs gradients: the model's, kept from step to step; a new one if None.
        measurement: Takes the tasks' gradients on the way, of a step of several tasks.
        distillation: Adds losses of tasks that are not trained but kept.

    Returns:
        The loss terms by task and name, detached.
    """
    device = next(iter(batches.values())).images.device
    images, lenders, targets = taken_apart(batches)
    chosen: Any = balancer
    terms: dict[str, dict[str, Tensor]] = {}
    answers: dict[str, dict[str, Tensor]] = {}
    if distillation is not None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            images, lenders, answers = distillation.look(images, lenders)

    def losses() -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(images, lenders)
            named = {task: model.loss(task, outputs[task], wanted) for task, wanted in targets.items()}
            if distillation is not None:
                named |= distillation.losses(outputs, answers)
            # In the order in which a balancer knows them.
            terms.update({task: named[task] for task in model.tasks if task in named})
            return {task: torch.stack(list(named.values())).sum() for task, named in terms.items()}

    engine = engine or GradientEngine(model)
    engine.backward(
        images, lenders, losses, chosen, at=at, divide=divide, observer=measurement if len(targets) > 1 else None
    )
    return {task: {name: term.detach() for name, term in named.items()} for task, named in terms.items()}
