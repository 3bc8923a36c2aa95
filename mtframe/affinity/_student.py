"""How far from 0 a mean must be not to be so by chance: Student's t."""

from __future__ import annotations

import math
from functools import cache

# The level that three standard errors have of many values, two-sided. Two would be a false alarm in 20, and some tasks
# and stages are that many means.
_CHANCE = math.erfc(3 / math.sqrt(2))


@cache
def quantile(count: int) -> float:
    """How many of its standard errors a mean of `count` values exceeds, either way, in 0.27 % of cases by chance.

    Of normal values whose mean is 0: the two-sided quantile of Student's t with `count` - 1 degrees of freedom, 3 for
    many values and more for few. Infinite for fewer than two, which have no standard error.
    """
    if count < 2:
        return math.inf
    low, high = 0.0, math.pi / 2
    # Halved until a double has no number between.
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _within(middle, count - 1) < 1 - _CHANCE else (low, middle)
    return math.sqrt(count - 1) * math.tan(middle)


def _within(angle: float, freedom: int) -> float:
    """P(|t| < √freedom · tan(angle)). Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    odd, square = freedom % 2, math.cos(angle) ** 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= square * (k + 1) / (k + 2)
    partly = math.sin(angle) * total
    return 2 / math.pi * (angle + partly) if odd else partly
