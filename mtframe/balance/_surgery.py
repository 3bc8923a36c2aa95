"""Balancers that change each task's gradient by the others', one after another in random order."""

# Shapes: T tasks.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ._options import checked

# Cosines that GradVac brings gradients to end here.
_HIGHEST = 0.999


class PCGrad:
    """Of each gradient, the part that opposes another task's is taken away (arXiv:2001.06782, alg. 1).

    g_t' starts as g_t; for each other s, in random order, g_t' -= (g_t'g_s / |g_s|²) g_s where g_t'g_s < 0. The update
    is the sum of all g_t'. All of it in inner products: row t holds g_t' as weights of the gradients.
    """

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients to their (T,) weights."""
        rows_TT = torch.eye(len(gram), dtype=gram.dtype)
        for task, other in _pairs(len(gram)):
            product = rows_TT[task] @ gram[other]
            if product < 0:
                rows_TT[task, other] -= product / gram[other, other]
        return rows_TT.sum(0)


class GradVac:
    """Gradients whose cosine is below what it usually is are brought up to it (arXiv:2010.05874, alg. 1).

    For each task t and each other s, in random order, with the cosine c of g_t' and g_s below its target k:
    g_t' += g_s |g_t'| (k sqrt(1 - c²) - c sqrt(1 - k²)) / (|g_s| sqrt(1 - k²)), after which the cosine is k. Then
    k = (1 - beta) k + beta c. The update is the sum of all g_t'. Over all shared parameters at once.

    No finite multiple of g_s brings the cosine to a k of 1 (eq. 4 divides by 0), where k goes if gradients stay alike.
    So it is brought to 0.999 at most, by less than 23 |g_t'|, and gradients more alike than that stay as they are; what
    k learns is the paper's.

    Args:
        tasks: Names of the tasks.
        beta: Part of each new cosine in the target.

    Raises:
        RecipeError: `beta` is not in 0..1.
    """

    def __init__(self, tasks: Sequence[str], *, beta: float = 0.01) -> None:
        self.tasks, self.beta = tuple(tasks), checked("beta", beta, 0 <= beta <= 1, "0 to 1")
        self.present: Sequence[str] = self.tasks
        self.targets_TT = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients, those of the tasks in `present`, to their (T,) weights."""
        here = [self.tasks.index(name) for name in self.present]
        rows_TT = torch.eye(len(gram), dtype=gram.dtype)
        for task, other in _pairs(len(gram)):
            length = (rows_TT[task] @ gram @ rows_TT[task]).clamp(min=0).sqrt()
            other_length = gram[other, other].sqrt()
            # A gradient of 0 has no direction.
            if length == 0 or other_length == 0:
                continue
            cosine = (rows_TT[task] @ gram[other] / (length * other_length)).clamp(-1, 1)
            pair = here[task], here[other]
            target = self.targets_TT[pair].clone()
            goal = target.clamp(max=_HIGHEST)
            if cosine < goal:
                across, goal_across = (1 - cosine**2).sqrt(), (1 - goal**2).sqrt()
                pull = (goal * across - cosine * goal_across) / goal_across
                rows_TT[task, other] += pull * length / other_length
            self.targets_TT[pair] += self.beta * (cosine - target)
        return rows_TT.sum(0)

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed needs."""
        return {"targets": self.targets_TT.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.targets_TT = state["targets"].clone()


def _pairs(number: int) -> list[tuple[int, int]]:
    """Each task with each other one, the others in an order that torch's generator draws anew for each task."""
    return [(task, other) for task in range(number) for other in torch.randperm(number).tolist() if other != task]
