"""A smooth maximum of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._options import checked
from ._terms import by_task, detached, logarithm

# Shapes: T tasks.

# Added to losses before their logarithm is taken.
_EPS = 1e-8


class STCH:
    """A smooth maximum of the losses: the worst task weighs most (smooth Tchebycheff, arXiv:2402.19078).

    T mu log sum_t exp(weight_t f_t / mu), f_t = L_t - ideal_t. With `normalise`, as in the paper's experiments,
    f_t = log((L_t - ideal_t) / nadir_t), so that units do not matter; nadir_t is the mean of the task's first `warmup`
    losses, so far. (The authors' code sums logarithms until that mean is complete.) A loss below its ideal has no
    logarithm: the maximum is NaN then, which stops the training.

    The paper's weights add up to 1, the ones here are 1 each, which is the same with a `mu` that is T times larger; and
    T times the scale, so that tasks that are equally bad weigh what they weigh in a sum.

    Args:
        tasks: Names of the tasks.
        mu: How smooth: towards 0 only the worst task counts, a large one weighs all alike.
        weights: Preference by task; a task that is not named weighs 1.
        ideals: The loss that a task would have alone, at best; 0 where it is not named.
        normalise: Compare how far losses have come down instead of the losses.
        warmup: Number of losses that a task's nadir is the mean of.

    Raises:
        RecipeError: `mu` is not above 0, `warmup` is below 1, a weight is negative, or a number is not finite or for an
            unknown task.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        mu: float = 1.0,
        weights: dict[str, float] | None = None,
        ideals: dict[str, float] | None = None,
        normalise: bool = True,
        warmup: int = 100,
    ) -> None:
        self.tasks, self.normalise = tuple(tasks), normalise
        self.mu = checked("mu", mu, mu > 0, "above 0")
        self.warmup = checked("warmup", warmup, warmup >= 1, "1 or more")
        self.weights = by_task(tasks, weights, "weights", default=1.0, floor=0.0)
        self.ideals = by_task(tasks, ideals, "ideals", default=0.0)
        # Rows: sum and number of each task's first losses above its ideal.
        self._first_2T = torch.zeros(2, len(self.tasks))

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar; NaN if one that is compared by logarithms is below its ideal."""
        above = {name: loss.float() - self.ideals[name] for name, loss in losses.items()}
        if self.normalise:
            nadirs = self._nadirs(above)
            above = {name: logarithm(value, _EPS) - torch.log(nadirs[name] + _EPS) for name, value in above.items()}
        first, *others = (self.weights[name] * value / self.mu for name, value in above.items())
        for term in others:
            first = torch.logaddexp(first, term)
        return len(losses) * self.mu * first

    def _nadirs(self, above: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen_T = detached(above, self.tasks)
        self._first_2T = self._first_2T.to(seen_T.device)
        # Neither the NaN of a task that is away nor a loss below its ideal.
        taken_T = (seen_T + _EPS > 0) & (self._first_2T[1] < self.warmup)
        self._first_2T[0] += torch.where(taken_T, seen_T, 0.0)
        self._first_2T[1] += taken_T
        return dict(zip(self.tasks, self._first_2T[0] / self._first_2T[1], strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed needs."""
        return {"first": self._first_2T}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._first_2T = state["first"].clone()
