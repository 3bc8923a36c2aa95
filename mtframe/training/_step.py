"""One forward and backward pass over the batches of all tasks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtframe.data import Batch
from mtframe.kinds import Balancer
from mtframe.model import MultiTaskModel


def training_step(
    model: MultiTaskModel,
    batches: Mapping[str, Batch],
    balancer: Balancer,
    *,
    precision: str = "fp32",
    divide: int = 1,
) -> dict[str, dict[str, Tensor]]:
    """Adds the gradient of the balanced loss to the parameters' `.grad`.

    Args:
        model: In training mode, on the batches' device.
        batches: Batch by task.
        balancer: Makes one loss of the tasks' losses.
        precision: `bf16` (autocast) or `fp32`.
        divide: The loss is divided by so much: number of batches that an optimiser step accumulates.

    Returns:
        The loss terms by task and name, detached.
    """
    device = next(iter(batches.values())).images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        also = {other: task for task, batch in batches.items() for other in batch.also}
        targets = {task: batch.targets for task, batch in batches.items()}
        targets |= {other: batches[task].also[other] for other, task in also.items()}
        outputs = model({task: batch.images for task, batch in batches.items()}, also)
        terms = {task: model.loss(task, outputs[task], wanted) for task, wanted in targets.items()}
        losses = {task: torch.stack(list(named.values())).sum() for task, named in terms.items()}
        total = balancer(losses)
    (total / divide).backward()
    return {task: {name: term.detach() for name, term in named.items()} for task, named in terms.items()}
