"""Weights by how fast the losses fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._options import checked
from ._terms import detached, weighted

# Shapes: T tasks.


class DWA:
    """A task whose loss falls slower than others' weighs more (dynamic weight average, arXiv:1803.10704, eq. 7).

    w_t = T exp(r_t / temperature) / sum_s exp(r_s / temperature), r_t = L_t(n-1) / L_t(n-2), where L_t(n) is the mean
    loss of period n. The paper's period is an epoch. Tasks with data of their own have no common one, so a period is a
    number of steps here. In the first two, and for a task that was not seen in them, r_t = 1.

    Args:
        tasks: Names of the tasks.
        temperature: A large one brings the weights closer to each other.
        period: Steps that a loss is averaged over.

    Raises:
        RecipeError: `temperature` is not above 0, `period` is below 1, or one is not finite.
    """

    def __init__(self, tasks: Sequence[str], *, temperature: float = 2.0, period: int = 100) -> None:
        self.tasks = tuple(tasks)
        self.temperature = checked("temperature", temperature, temperature > 0, "above 0")
        self.period = checked("period", period, period >= 1, "1 or more")
        self._steps = 0
        # Rows: sum and number of the losses of this period, their means in the last and in the one before.
        self._history_4T = torch.zeros(4, len(self.tasks))
        self._history_4T[2:] = torch.nan

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to their sum with the weights of this period."""
        seen_T = detached(losses, self.tasks)
        # On the losses' device: reading them here would make the step wait for a GPU.
        self._history_4T = self._history_4T.to(seen_T.device)
        if self._steps == self.period:
            self._turn()
        weights_T = self._weights()
        self._steps += 1
        self._history_4T[0] += seen_T.nan_to_num(0.0)
        self._history_4T[1] += seen_T.isnan().logical_not()
        return weighted(losses, dict(zip(self.tasks, weights_T, strict=True)))

    def _turn(self) -> None:
        sums_T, counts_T, last_T, _ = self._history_4T
        means_T = torch.where(counts_T > 0, sums_T / counts_T, last_T)
        self._history_4T = torch.stack([torch.zeros_like(means_T), torch.zeros_like(means_T), means_T, last_T])
        self._steps = 0

    def _weights(self) -> Tensor:
        ratios_T = (self._history_4T[2] / self._history_4T[3]).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        return (ratios_T / self.temperature).softmax(0) * len(self.tasks)

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed needs."""
        return {"steps": self._steps, "history": self._history_4T}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self._steps, self._history_4T = state["steps"], state["history"].clone()
