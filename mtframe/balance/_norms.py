"""Balancers that look at the lengths of the gradients only."""

# Shapes: T tasks.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ._options import checked

# Below this a weight of GradNorm does not fall: a negative one would make its task worse.
_LEAST = 1e-3


class GradientNorm:
    """All gradients made equally long: w_t = n / |g_t|, as in DB-MTL (arXiv:2308.12029, sec. 3.2).

    A gradient of 0 stays one.

    Args:
        length: What n is: the `max` of the gradients' lengths (the paper's), their `mean` or their `min`.
    """

    def __init__(self, *, length: Literal["max", "mean", "min"] = "max") -> None:
        self.length = length

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients to their (T,) weights."""
        norms_T = gram.diagonal().sqrt()
        live = norms_T[norms_T != 0]
        if not len(live):
            return torch.ones_like(losses)
        common = {"max": live.max(), "mean": live.mean(), "min": live.min()}[self.length]
        return torch.where(norms_T != 0, common / norms_T, 1.0)


class GradNorm:
    """Weights that bring the gradients' lengths together, longer for slow tasks (arXiv:1711.02257, alg. 1).

    With a task's length G_t = w_t |g_t|, the mean of these G, and its loss as a part of its first one, r_t over their
    mean, w goes down the gradient of sum_t |G_t - G r_t^alpha| (eq. 2, G r_t^alpha held constant) and is scaled to
    the mean 1. What differs: that gradient is divided by G, so that `lr` does not depend on the unit of the losses;
    |g_t| is of all shared parameters, not of the last layer's; and no weight falls below 0.001.

    Args:
        tasks: Names of the tasks.
        alpha: Strength of the pull on slow tasks; 0 for equal lengths.
        lr: Learning rate of the weights.

    Raises:
        RecipeError: `lr` is not above 0, or a number is not finite.
    """

    # The weights are those of the losses: the heads feel them as well.
    weighs_heads: ClassVar[bool] = True

    def __init__(self, tasks: Sequence[str], *, alpha: float = 1.5, lr: float = 0.025) -> None:
        self.tasks = tuple(tasks)
        self.alpha = checked("alpha", alpha, not math.isnan(alpha), "a number")
        self.lr = checked("lr", lr, lr > 0, "above 0")
        self.present: Sequence[str] = self.tasks
        self.weights_T = torch.ones(len(tasks), dtype=torch.float64)
        self._first_T = torch.full_like(self.weights_T, torch.nan)

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients and (T,) losses to (T,) weights, those before this step's change.

        Of the tasks in `present`; those of the others stay as they are.
        """
        here = [self.tasks.index(name) for name in self.present]
        self._first_T[here] = torch.where(self._first_T[here].isnan(), losses, self._first_T[here])
        weights_T = self.weights_T[here]
        norms_T = gram.diagonal().sqrt()
        lengths_T = weights_T * norms_T
        mean = lengths_T.mean()
        if mean > 0:
            # 0 / 0 is a task that was at 0 from the start: neither fast nor slow.
            rates_T = (losses / self._first_T[here]).nan_to_num(1.0).clamp(min=0)
            wanted_T = mean * (rates_T / rates_T.mean()).nan_to_num(1.0) ** self.alpha
            slopes_T = (lengths_T - wanted_T).sign() * norms_T / mean
            moved_T = (weights_T - self.lr * slopes_T).clamp(min=_LEAST)
            # Their mean stays what it was, which is 1 for all tasks.
            self.weights_T[here] = moved_T * (weights_T.mean() / moved_T.mean())
        return weights_T

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed needs."""
        return {"weights": self.weights_T.clone(), "first": self._first_T.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.weights_T, self._first_T = state["weights"].clone(), state["first"].clone()
