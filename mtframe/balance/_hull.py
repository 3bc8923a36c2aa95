"""Balancers that look for the direction in which the worst task improves most."""

from __future__ import annotations

from typing import ClassVar

from ._options import checked
from ._solvers import Array, conflict_averse, min_norm_point
from ._solving import Solving


class MGDA(Solving):
    """The shortest vector in the convex hull of the gradients (arXiv:1810.04650, eq. 3).

    w = argmin |sum_t w_t g_t|², w >= 0, sum_t w_t = 1. No task gets worse along it, and it is 0 exactly where no
    direction helps all tasks. A task with small gradients rules; one whose gradient is 0 stops the shared parameters.
    """

    name: ClassVar[str] = "mgda"

    def solve(self, gram_TT: Array) -> tuple[Array, bool]:
        """The min-norm point, exactly, by active sets (the paper's Frank-Wolfe steps come near it)."""
        return min_norm_point(gram_TT)


class CAGrad(Solving):
    """The direction near the mean gradient along which the worst task improves most (arXiv:2110.14048).

    d = argmax min_t g_t'd with |d - g0| <= c |g0|, g0 the mean of the tasks' gradients.

    Args:
        c: How far from the mean: 0 is the mean itself, a large one comes near MGDA. Below 1 it converges to a minimum
            of the mean loss.

    Raises:
        RecipeError: `c` is negative or not finite.
    """

    name: ClassVar[str] = "cagrad"

    def __init__(self, *, c: float = 0.4) -> None:
        self.c = checked("c", c, c >= 0, "0 or more")

    def solve(self, gram_TT: Array) -> tuple[Array, bool]:
        """Weights of the direction."""
        return conflict_averse(gram_TT, self.c)
