"""Losses that fall at the same rate, without gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._options import checked
from ._terms import detached, weighted

# Shapes: T tasks.

# Added to losses before their logarithm is taken.
_EPS = 1e-8

# Of Adam (arXiv:1412.6980), which the paper learns the logits with.
_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8


class FAMO:
    """All losses fall at the same rate, by the losses alone (fast adaptive multitask optimisation, arXiv:2306.03792).

    Weights w_t = c z_t / L_t with z = softmax(logits) and c so that they add up to 1 (the paper's rescaled form).
    The logits go down the gradient z_t (d_t - sum_s z_s d_s), d_t = log L_t(before) - log L_t(after a step), by Adam.

    The authors evaluate L_t(after) on the same batch again, a second forward pass at each step. Here it is the loss of
    the task's next batch, which costs nothing. Its noise does not pile up: what one batch adds to d_t the next takes
    off again, as the sum of d_t over steps is log L_t(first) - log L_t(last). It does slow the logits down, as Adam
    divides by it.

    A loss of -1e-8 or less has no logarithm: the sum is NaN then, which stops the training.

    Args:
        tasks: Names of the tasks.
        lr: Learning rate of the logits.
        weight_decay: Pulls the logits to 0, all tasks alike (the paper's gamma).

    Raises:
        RecipeError: `lr` or `weight_decay` is negative or not finite.
    """

    def __init__(self, tasks: Sequence[str], *, lr: float = 0.025, weight_decay: float = 1e-3) -> None:
        self.tasks = tuple(tasks)
        self.lr = checked("lr", lr, lr >= 0, "0 or more")
        self.weight_decay = checked("weight_decay", weight_decay, weight_decay >= 0, "0 or more")
        self._steps = 0
        # Rows: logits, Adam's two moments, each task's last loss.
        self._state_4T = torch.zeros(4, len(self.tasks))
        self._state_4T[3] = torch.nan

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Positive scalars by task to their sum with the weights of this step; NaN if one is not."""
        now_T = detached(losses, self.tasks)
        self._state_4T = self._state_4T.to(now_T.device)
        before_T = self._state_4T[3].clone()
        # The first step of all has none before it; Adam starts with the second.
        if self._steps:
            self._learn((torch.log(before_T + _EPS) - torch.log(now_T + _EPS)).nan_to_num(0.0))
        self._steps += 1
        self._state_4T[3] = torch.where(now_T.isnan(), before_T, now_T)
        # A task without a loss pulls at nothing, and one whose loss has no logarithm makes all of it NaN.
        pulls_T = (self._state_4T[0].softmax(0) / (now_T + _EPS)).nan_to_num(0.0)
        pulls_T = torch.where(now_T + _EPS <= 0, torch.nan, pulls_T)
        return weighted(losses, dict(zip(self.tasks, pulls_T / pulls_T.sum(), strict=True)))

    def _learn(self, falls_T: Tensor) -> None:
        logits_T, first_T, second_T, _ = self._state_4T
        shares_T = logits_T.softmax(0)
        # No product of vectors: in a step under autocast that would be one of bf16.
        slopes_T = shares_T * (falls_T - (shares_T * falls_T).sum()) + self.weight_decay * logits_T
        first_T.lerp_(slopes_T, 1 - _BETAS[0])
        second_T.lerp_(slopes_T.square(), 1 - _BETAS[1])
        first, second = (1 - beta**self._steps for beta in _BETAS)
        logits_T -= self.lr * (first_T / first) / ((second_T / second).sqrt() + _ADAM_EPS)

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed needs."""
        return {"steps": self._steps, "state": self._state_4T}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._steps, self._state_4T = state["steps"], state["state"].clone()
