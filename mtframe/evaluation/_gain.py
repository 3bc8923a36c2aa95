"""One number for several tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping


def mean_relative_gain(
    scores: Mapping[str, float], reference: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Mean over tasks of how much better a score is than its reference, relative to the reference.

    With M a task's score, B its reference and s = 1 where more is better and -1 where less is:
    mean over tasks of s * (M - B) / |B| (arXiv:1904.08918, eq. 4). A task whose reference is 0 or not finite has
    nothing to be relative to and counts as 0; a score that is not finite counts as a loss of all of it (-1).

    Args:
        scores: Primary score by task.
        reference: The score to compare with, by task.
        higher_is_better: By task.

    Returns:
        The mean relative gain; 0.05 reads "on average 5 % better".
    """
    gains = []
    for task, score in scores.items():
        base = reference[task]
        if base == 0 or not math.isfinite(base):
            gains.append(0.0)
        elif not math.isfinite(score):
            gains.append(-1.0)
        else:
            gains.append((score - base) / abs(base) * (1 if higher_is_better[task] else -1))
    return sum(gains) / len(gains)
