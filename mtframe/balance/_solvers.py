"""Small optimisation problems of the Gram matrix, solved in float64 without a modelling package.

A handful of tasks makes problems of a handful of unknowns: exact active sets and Newton's method take tens of
microseconds. Each solver returns its best iterate and whether that meets the optimality conditions.
"""

# Shapes: T tasks; A and B subsets of them.

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# How far optimality conditions may be missed, relative to the terms in them. Rounding inner products to float64 moves
# the vectors behind them by its square root, 1e-8.
_TOLERANCE = 1e-7

# Singular values below this part of the largest are 0: gradients are inner products of float32 numbers.
_RANK = 1e-12

# A sum of gradients that is this much shorter than its longest term is rounding.
_CANCELS = 1e-5


def semidefinite(gram_TT: Array) -> Array:
    """The Gram matrix without eigenvalues below 0, which products in float32 have where gradients are dependent."""
    lengths_T = np.sqrt(np.diag(gram_TT))
    scale_T = np.where(lengths_T > 0, lengths_T, 1.0)
    values_T, vectors_TT = np.linalg.eigh(gram_TT / np.outer(scale_T, scale_T))
    if values_T[0] >= -1e-14 * values_T[-1]:
        return gram_TT
    factor_TT = vectors_TT * np.sqrt(values_T.clip(min=0)) * lengths_T[:, None]
    return factor_TT @ factor_TT.T


def nonnegative_qp(matrix_TT: Array, linear_T: Array) -> tuple[Array, bool]:
    """The x >= 0 with the least x'Mx / 2 + q'x, by active sets (Lawson and Hanson, 1974, ch. 23, on the Gram matrix).

    Args:
        matrix_TT: M, positive semi-definite.
        linear_T: q, in the range of M (the problem is unbounded otherwise).
    """
    scale_T = 1 / np.sqrt(np.where(np.diag(matrix_TT) > 0, np.diag(matrix_TT), 1.0))
    # A unit diagonal: the solution does not depend on the scale of any gradient.
    matrix_TT, linear_T = matrix_TT * np.outer(scale_T, scale_T), linear_T * scale_T
    size = max(float(np.abs(linear_T).max()), np.finfo(float).tiny)
    x_T = np.zeros(len(linear_T))
    passive_T, barred_T = np.zeros(len(x_T), bool), np.zeros(len(x_T), bool)
    for _ in range(10 * len(x_T) + 10):
        slope_T = np.where(passive_T | barred_T, 0.0, matrix_TT @ x_T + linear_T)
        if slope_T.min() >= -1e-13 * size:
            break
        entering = int(slope_T.argmin())
        moved_T, kept_T = _towards_optimum(matrix_TT, linear_T, x_T, passive_T | (np.arange(len(x_T)) == entering))
        # The slope of one that enters and is thrown out at once was rounding: it must not enter again at once.
        barred_T = np.where(kept_T[entering], False, barred_T)
        barred_T[entering] = not kept_T[entering]
        x_T, passive_T = moved_T, kept_T
    slope_T = matrix_TT @ x_T + linear_T
    solved = slope_T.min() >= -_TOLERANCE * size and float(np.abs(x_T * slope_T).max()) <= _TOLERANCE * size * size
    return x_T * scale_T, bool(solved)


def _towards_optimum(matrix_TT: Array, linear_T: Array, x_T: Array, passive_T: Mask) -> tuple[Array, Mask]:
    """From x to the optimum over the passive variables, giving up those that would turn negative on the way."""
    while passive_T.any():
        goal_T = np.zeros(len(x_T))
        goal_T[passive_T] = np.linalg.lstsq(matrix_TT[np.ix_(passive_T, passive_T)], -linear_T[passive_T], _RANK)[0]
        blocking_T = passive_T & (goal_T <= 0)
        if not blocking_T.any():
            return goal_T, passive_T
        length_B = x_T[blocking_T] / np.maximum(x_T[blocking_T] - goal_T[blocking_T], np.finfo(float).tiny)
        x_T = x_T + length_B.min() * (goal_T - x_T)
        x_T[np.flatnonzero(blocking_T)[length_B <= length_B.min()]] = 0.0
        passive_T = passive_T & (x_T > 0)
        x_T = np.where(passive_T, x_T, 0.0)
    return x_T, passive_T


def min_norm_point(gram_TT: Array) -> tuple[Array, bool]:
    """The w >= 0 that sum to 1 with the least w'Gw: of the points' convex hull the one nearest to 0.

    Along r w, r >= 0, the least of r² w'Gw / 2 + s (r - 1)² / 2 grows with w'Gw. So w is the direction of the
    x >= 0 that minimises x'(G + s 11')x / 2 - s 1'x, for any s > 0.
    """
    least = float(np.diag(gram_TT).min())
    if least <= 0:
        return np.eye(len(gram_TT))[np.diag(gram_TT).argmin()], True
    x_T, solved = nonnegative_qp(gram_TT + least, np.full(len(gram_TT), -least))
    return (x_T / x_T.sum(), solved) if x_T.sum() > 0 else (np.full(len(x_T), 1 / len(x_T)), False)


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def power_balance(
    matrix_TT: Array, factor_T: Array, power: float, *, largest: float = 1e5, steps: int = 200
) -> tuple[Array, bool]:
    """The x > 0 with Mx = k x^-p, by Newton's method on x'Mx / 2 - sum of k times an integral of x^-p.

    Where M maps some x > 0 to 0 there is none, and iterates grow without end: it stops where an x is `largest` times
    the square root of x'Mx, a sum of unit gradients that all but cancel: in float32 it would be rounding. Likewise
    where factors are so far apart that the step cannot be found, or its powers overflow.

    Args:
        matrix_TT: M, positive semi-definite with a diagonal of ones.
        factor_T: k > 0.
        power: p > 0.
        largest: As above.
        steps: Of Newton's method, at most.
    """
    x_T: Array = factor_T ** (1 / (1 + power))
    for _ in range(steps):
        wanted_T: Array = factor_T * x_T**-power
        error_T: Array = matrix_TT @ x_T - wanted_T
        if float((np.abs(error_T) / _size(matrix_TT, x_T, wanted_T)).max()) <= 1e-12:
            break
        try:
            step_T = np.linalg.solve(matrix_TT + np.diag(power * wanted_T / x_T), -error_T).astype(np.float64)
        except np.linalg.LinAlgError:
            break
        moved_T = x_T + _damping(matrix_TT, factor_T, power, x_T, step_T, float(error_T @ step_T)) * step_T
        if not (np.isfinite(moved_T) & (moved_T > 0)).all() or np.array_equal(moved_T, x_T):
            break
        if norm(matrix_TT, moved_T) * largest < float(moved_T.max()):
            break
        x_T = moved_T
    wanted_T = factor_T * x_T**-power
    missed_T, size_T = np.abs(matrix_TT @ x_T - wanted_T), _size(matrix_TT, x_T, wanted_T)
    return x_T, bool(np.isfinite(size_T).all() and (missed_T <= _TOLERANCE * size_T).all())


def _size(matrix_TT: Array, x_T: Array, wanted_T: Array) -> Array:
    """The size of the largest terms of the equation Mx = wanted, which rounding is relative to."""
    size_T: Array = np.maximum(wanted_T, (np.abs(matrix_TT) * x_T).max(1))
    return size_T


def _damping(matrix_TT: Array, factor_T: Array, power: float, x_T: Array, step_T: Array, slope: float) -> float:
    """How much of Newton's step keeps x above 0 and comes down (Armijo's rule)."""

    def value(at_T: Array) -> float:
        integral_T = np.log(at_T) if power == 1 else at_T ** (1 - power) / (1 - power)
        return float(at_T @ matrix_TT @ at_T / 2 - factor_T @ integral_T)

    length = min(1.0, 0.99 / max(float((-step_T / x_T).max()), 1e-300))
    here = value(x_T)
    # Near the solution the differences are rounding, hence the last term.
    while value(x_T + length * step_T) > here + 1e-4 * length * slope + 1e-12 * abs(here) and length > 1e-12:
        length /= 2
    return length


def conflict_averse(gram_TT: Array, radius: float) -> tuple[Array, bool]:
    """Weights v of d = sum_t v_t g_t with the largest min_t g_t'd within `radius` times |g0| of the mean g0.

    The dual (CAGrad, arXiv:2110.14048): w in the simplex with the least F(w) = g_w'g0 + radius |g0| |g_w|, and
    d = g0 + radius |g0| g_w / |g_w|. As |g_w| is the least of (|g_w|² / s + s) / 2 over s > 0, it is one min-norm
    problem for a given s, of the points g_t + s g0 / (radius |g0|), and a root in s: that |g_w| = s. Where g_w is 0 at
    the least F there is none above 0; a small s, d = g0 + radius |g0| g_w / s, then comes as near as rounding allows.
    """
    mean_T, lengths_T = np.full(len(gram_TT), 1 / len(gram_TT)), np.sqrt(np.diag(gram_TT))
    towards_T, longest, mean_norm = gram_TT @ mean_T, float(lengths_T.max()), norm(gram_TT, mean_T)
    # A mean of 0 has nothing around it.
    if radius == 0 or mean_norm <= _RANK * longest:
        return mean_T, True

    def nearest(s: float) -> Array:
        shift = s / (radius * mean_norm)
        return min_norm_point(gram_TT + shift * (towards_T[:, None] + towards_T) + (shift * mean_norm) ** 2)[0]

    def excess(log_s: float) -> float:
        # By logarithms it is nearly a line.
        return float(np.log(max(norm(gram_TT, nearest(np.exp(log_s))), 1e-300)) - log_s)

    tiny = 1e-9 * longest
    low = max(tiny, _CANCELS * float((nearest(tiny) * lengths_T).max()))
    s = float(np.exp(_root(excess, np.log(low), np.log(longest)))) if excess(np.log(low)) > 0 else low
    w_T = nearest(s)
    weights_T = mean_T + radius * mean_norm / s * w_T
    # No d is better than F(w) for any w.
    gap = w_T @ towards_T + radius * mean_norm * norm(gram_TT, w_T) - (gram_TT @ weights_T).min()
    return weights_T, bool(gap <= (1 + radius) * mean_norm * low)


def norm(gram_TT: Array, weights_T: Array) -> float:
    """Length of the weighted sum of gradients."""
    return float(np.sqrt(max(float(weights_T @ gram_TT @ weights_T), 0.0)))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that falls from above 0 to 0 or less crosses it: regula falsi, Illinois variant."""
    above, below, side = function(low), function(high), 0
    for _ in range(100):
        if below == 0 or high - low <= 1e-14:
            break
        middle = high - below * (high - low) / (below - above)
        value = function(middle)
        if abs(value) <= 1e-13:
            return middle
        if value > 0:
            low, above, below, side = middle, value, below / (2 if side == 1 else 1), 1
        else:
            high, below, above, side = middle, value, above / (2 if side == -1 else 1), -1
    return high
