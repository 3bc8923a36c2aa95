"""The plain or weighted sum of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ._terms import by_task, weighted


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
        self.weights = by_task(tasks, weights, "weights", default=1.0, floor=0.0)

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to their weighted sum."""
        return weighted(losses, self.weights)
