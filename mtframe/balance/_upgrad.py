"""Gradients projected so that no task loses."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._solvers import Array, nonnegative_qp
from ._solving import Solving


class UPGrad(Solving):
    """Each gradient, projected to where no task gets worse; the mean of these (arXiv:2406.16232).

    d = mean over t of the projection of g_t onto the dual cone {d: g_s'd >= 0 for all s}, which has the weights
    v = argmin v'Gv, v >= e_t (prop. 1). Without conflicts it is the mean gradient. No task gets worse along it.
    """

    name: ClassVar[str] = "upgrad"

    def solve(self, gram_TT: Array) -> tuple[Array, bool]:
        """One quadratic problem a task, in the x >= 0 that is added to e_t."""
        added = [nonnegative_qp(gram_TT, row_T) for row_T in gram_TT]
        weights_T = 1 + np.sum([x_T for x_T, _ in added], axis=0)
        return weights_T / len(gram_TT), all(solved for _, solved in added)
