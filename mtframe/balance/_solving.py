"""What balancers that solve a problem of the Gram matrix have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ._solvers import Array, semidefinite

# Shapes: T tasks; L those of them whose gradient is not 0.

_log = logging.getLogger("mtframe.balance")


class Solving(ABC):
    """A balancer that solves a problem of the Gram matrix.

    Where the solver does not reach the optimality conditions its best iterate is used; that is counted, and logged
    the first, second, fourth, eighth, ... time.

    Attributes:
        name: As recipes write it.
        failures: How often it did not converge.
    """

    name: ClassVar[str]
    failures: int = 0

    @abstractmethod
    def solve(self, gram_TT: Array) -> tuple[Array, bool]:
        """(T, T) finite inner products to (T,) weights and whether they are a solution."""

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """Weights of the tasks' gradients.

        Args:
            gram: (T, T) float64 on the CPU, inner products of the gradients.
            losses: (T,) float64.

        Returns:
            (T,) float64; NaN if a gradient is not finite.
        """
        if not gram.isfinite().all():
            return torch.full_like(losses, torch.nan)
        weights_T, solved = self.solve(semidefinite(gram.numpy()))
        if not solved:
            self._count()
        return torch.from_numpy(weights_T)

    def _count(self) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:
            _log.warning(
                "balancer %s: the solver did not converge (%d times so far); its best iterate is used",
                self.name,
                self.failures,
            )

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed needs."""
        return {"failures": self.failures}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.failures = state["failures"]


def by_direction(gram_TT: Array, solve: Callable[[Array, Array], tuple[Array, bool]]) -> tuple[Array, bool]:
    """Weights by the cosines of the gradients and by their norms, each in a matrix or vector of its own.

    Args:
        gram_TT: Inner products.
        solve: From cosines (L, L) and norms (L,) of gradients that are not 0 to their weights and whether they solve
            the problem. Gradients of 0 weigh 0.
    """
    norms_T = np.sqrt(np.diag(gram_TT))
    live = np.flatnonzero(norms_T)
    weights_T = np.zeros(len(gram_TT))
    if not len(live):
        return weights_T, True
    cosines_LL = gram_TT[np.ix_(live, live)] / np.outer(norms_T[live], norms_T[live])
    weights_T[live], solved = solve(cosines_LL, norms_T[live])
    return weights_T, solved
