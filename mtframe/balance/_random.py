"""Random weights of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ._options import checked
from ._terms import weighted


class Random:
    """Other weights at each step, drawn at random: the control that a clever balancer has to beat.

    Random loss weighting (RLW, arXiv:2111.10603): w = T softmax(z), z ~ N(0, spread²), for T tasks; the mean is 1.

    Args:
        tasks: Names of the tasks.
        spread: Standard deviation of what the softmax is taken of; 0 weighs all tasks alike.

    Raises:
        RecipeError: `spread` is negative or not finite.
    """

    def __init__(self, tasks: Sequence[str], *, spread: float = 1.0) -> None:
        # Sorted: what a task draws does not depend on where the recipe has it.
        self.tasks = tuple(sorted(tasks))
        self.spread = checked("spread", spread, spread >= 0, "0 or more")

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to their sum with the weights of this step."""
        # Drawn on the CPU for all tasks: the same on every device, and whichever of them train in this step.
        drawn = (self.spread * torch.randn(len(self.tasks))).softmax(0) * len(self.tasks)
        return weighted(losses, dict(zip(self.tasks, drawn.tolist(), strict=True)))
