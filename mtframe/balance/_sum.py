from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from mtframe.errors import RecipeError


class Sum:
    """The weighted sum of the tasks' losses.

    The default, because careful comparisons find a tuned sum hard to beat (arXiv:2201.04122, arXiv:2209.11379).

    Args:
        tasks: Names of the tasks.
        weights: Weight by task; a task that is not named weighs 1.

    Raises:
        RecipeError: A weight for an unknown task, or one that is negative or not finite.
    """

    def __init__(self, tasks: Sequence[str], *, weights: dict[str, float] | None = None) -> None:
        weights = weights or {}
        for name, weight in weights.items():
            if name not in tasks:
                raise RecipeError(f"balancer.weights.{name}: no such task; the tasks are {', '.join(tasks)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise RecipeError(f"balancer.weights.{name}: expected a finite weight >= 0, got {weight}")
        self.weights = {name: weights.get(name, 1.0) for name in tasks}

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to their weighted sum."""
        # A running sum, not torch.stack(...).sum(): a stack would tie every task's graph to every other's.
        terms = [loss * self.weights[name] for name, loss in losses.items()]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
