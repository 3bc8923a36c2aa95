"""Balancers that make the tasks' improvements proportional to a power of their weights."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mtframe.errors import RecipeError

from ._options import checked
from ._solvers import Array, norm, power_balance
from ._solving import Solving, by_direction


class NashMTL(Solving):
    """The Nash bargaining solution: improvements of which none can grow by a part without others' falling by more.

    G w = 1 / w, w > 0 (arXiv:2202.01017, claim 3.1), G first divided by its Frobenius norm, as the authors do; of an
    update longer than `max_norm` the weights are scaled down to it. The solution has w_t ∝ 1 / |g_t|: units do not
    matter. Solved exactly, by Newton's method on w'Gw / 2 - sum_t log w_t (the authors solve a sequence of convex
    approximations and reuse weights for several steps, as each costs them much). Where gradients cancel there is none.

    Args:
        max_norm: Length of the update at most; 0 for no limit.

    Raises:
        RecipeError: `max_norm` is negative or NaN.
    """

    name: ClassVar[str] = "nash-mtl"

    def __init__(self, *, max_norm: float = 1.0) -> None:
        # Infinity is no limit either, hence not `checked`.
        if not max_norm >= 0:
            raise RecipeError(f"max_norm: must be 0 or more, got {max_norm:g}")
        self.max_norm = max_norm

    def solve(self, gram_TT: Array) -> tuple[Array, bool]:
        """Weights of the tasks' gradients, above 0 where those are not 0."""
        weights_T, solved = by_direction(gram_TT, _nash)
        weights_T *= np.sqrt(np.linalg.norm(gram_TT))
        length = norm(gram_TT, weights_T)
        return weights_T * (self.max_norm / length if 0 < self.max_norm < length else 1.0), solved


def _nash(cosines_LL: Array, norms_L: Array) -> tuple[Array, bool]:
    weights_L, solved = power_balance(cosines_LL, np.ones(len(norms_L)), 1.0)
    return weights_L / norms_L, solved


class FairGrad(Solving):
    """Improvements that are alpha-fair (arXiv:2402.15638, eq. 4): G w = w^(-1/alpha), w > 0.

    alpha = 0 is the sum of the gradients, 1 proportional fairness (Nash-MTL without its scaling), 2 minimal potential
    delay; towards infinity the worst improvement counts alone. Its update's length does not follow that of the
    gradients (for alpha = 1 it is the square root of T): choose the learning rate by it. Where gradients cancel there
    is no solution.

    Args:
        alpha: How fair.

    Raises:
        RecipeError: `alpha` is neither 0 nor 0.1 or more (the equation's powers overflow), or not finite.
    """

    name: ClassVar[str] = "fairgrad"

    def __init__(self, *, alpha: float = 1.0) -> None:
        self.alpha = checked("alpha", alpha, alpha == 0 or alpha >= 0.1, "0, or 0.1 or more")

    def solve(self, gram_TT: Array) -> tuple[Array, bool]:
        """Weights of the tasks' gradients, above 0 where those are not 0."""
        if self.alpha == 0:
            return np.ones(len(gram_TT)), True
        return by_direction(gram_TT, self._fair)

    def _fair(self, cosines_LL: Array, norms_L: Array) -> tuple[Array, bool]:
        # With x = w |g|, C x = |g|^(p - 1) x^-p.
        power = 1 / self.alpha
        weights_L, solved = power_balance(cosines_LL, norms_L ** (power - 1), power)
        return weights_L / norms_L, solved
