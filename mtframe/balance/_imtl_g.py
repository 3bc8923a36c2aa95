"""A sum of the gradients on which all have the same projection."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._solvers import Array
from ._solving import Solving, by_direction


class ImtlG(Solving):
    """All gradients have the same projection on the update (IMTL-G, Liu et al., ICLR 2021).

    d = sum_t w_t g_t with d'u_t equal for all unit gradients u_t, and |sum_t w_t| = 1. With cosines C and norms n that
    is w_t ∝ (C⁻¹ 1)_t / n_t. Weights may be negative. Where their sum is, the paper's sum_t w_t = 1 turns the update
    around, so that every task gets worse; here it keeps its direction.
    """

    name: ClassVar[str] = "imtl-g"

    def solve(self, gram_TT: Array) -> tuple[Array, bool]:
        """Weights whose sum is 1, or -1."""
        return by_direction(gram_TT, _impartial)


def _impartial(cosines_LL: Array, norms_L: Array) -> tuple[Array, bool]:
    values_L, vectors_LL = np.linalg.eigh(cosines_LL)
    along_L = vectors_LL.T @ np.ones(len(values_L))
    flat_L = values_L <= 1e-10 * values_L[-1]
    if np.abs(along_L[flat_L]).max(initial=0.0) > 1e-6:
        # C w = 1 has no solution, but C w = 0 has: a zero update, whose projections are equal.
        weights_L = vectors_LL[:, flat_L] @ along_L[flat_L] / norms_L
    else:
        weights_L = vectors_LL[:, ~flat_L] @ (along_L[~flat_L] / values_L[~flat_L]) / norms_L
    # Where weights cancel they cannot sum to 1 without growing beyond bounds; then their sizes do.
    total, size = float(weights_L.sum()), float(np.abs(weights_L).sum())
    return (weights_L / abs(total), True) if abs(total) > 1e-6 * size else (weights_L / size, False)
