"""The loss terms of a step: scalars on the device, detached, by task and name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Terms = dict[str, dict[str, Tensor]]


def mean_terms(passes: Sequence[Terms], tasks: Sequence[str]) -> Terms:
    """The mean of each term over the batches of a step that have it; without waiting for the device.

    Args:
        passes: The terms of each batch. Not every task takes part in each.
        tasks: The order of tasks.
    """
    if len(passes) == 1:
        return passes[0]
    found: dict[str, dict[str, list[Tensor]]] = {}
    for terms in passes:
        for task, named in terms.items():
            for name, value in named.items():
                found.setdefault(task, {}).setdefault(name, []).append(value)
    return {
        task: {name: torch.stack(values).mean() for name, values in found[task].items()}
        for task in tasks
        if task in found
    }
