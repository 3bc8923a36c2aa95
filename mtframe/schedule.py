"""Schedules: which tasks train at which step, as a pure function of the step.

A schedule says how many batches of each task the first n steps take, for any n. Everything else follows from that, so a
step a million on costs what the first does, and a resumed run needs no state of it.
"""

# Symbols: n steps done, p_t a task's share of them, w_t its weight, T tasks.

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from fractions import Fraction
from itertools import accumulate

from mtframe.errors import RecipeError
from mtframe.kinds import Schedule

# What a task's batches to the power 1 / temperature are counted in. Whole numbers, so that an order is exact.
_UNIT = 2**20


def turns(schedule: Schedule, step: int) -> dict[str, int]:
    """The tasks that train in a step, counted from 0, each with the number of its own batch, counted from 0."""
    before, after = schedule.draws(step), schedule.draws(step + 1)
    return {task: count for task, count in before.items() if after[task] > count}


class Joint:
    """Every task in every step; shorter tasks go round more often.

    Args:
        lengths: By task, the batches that show each of its images once.
        every: By task, k: it takes part in steps 0, k, 2k and so on. 1 for those that are not named; of one task at
            least, since a step would otherwise train nothing.

    Attributes:
        steps_per_epoch: Steps that show every image of every task at least once.
    """

    def __init__(self, lengths: Mapping[str, int], every: Mapping[str, int] | None = None) -> None:
        self._every = {task: (every or {}).get(task, 1) for task in lengths}
        self.steps_per_epoch = max(length * self._every[task] for task, length in lengths.items())

    def draws(self, steps: int) -> dict[str, int]:
        """All tasks, one that takes part in every k-th step once in k steps."""
        return {task: -(-steps // every) for task, every in self._every.items()}


class RoundRobin:
    """One task a step, in turn; shorter tasks go round more often.

    Args:
        lengths: By task, the batches that show each of its images once.

    Attributes:
        steps_per_epoch: Steps that show every image of every task at least once.
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self._tasks = tuple(lengths)
        self.steps_per_epoch = len(lengths) * max(lengths.values())

    def draws(self, steps: int) -> dict[str, int]:
        """One of each task a turn."""
        count = len(self._tasks)
        return {task: (steps + count - 1 - turn) // count for turn, task in enumerate(self._tasks)}


class Epochs:
    """One task after the other: in each epoch all batches of the first task, then all of the second, and so on.

    Args:
        lengths: By task, the batches that show each of its images once.

    Attributes:
        steps_per_epoch: Steps that show every image of every task once.
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self._lengths = dict(lengths)
        self._starts = dict(zip(lengths, accumulate(lengths.values(), initial=0), strict=False))
        self.steps_per_epoch = sum(lengths.values())

    def draws(self, steps: int) -> dict[str, int]:
        """A task's batches in the epochs done, and in this one."""
        epoch, position = divmod(steps, self.steps_per_epoch)
        return {
            task: epoch * length + min(max(position - self._starts[task], 0), length)
            for task, length in self._lengths.items()
        }


class Temperature:
    """One task a step, each in proportion to its number of batches to the power 1 / temperature.

    p_t ∝ w_t = n_t^(1/τ) with n_t the batches that show each of its images once (arXiv:1910.10683, sec. 3.5.2, after
    arXiv:1907.05019; there n_t are examples). At τ = 1 every image of every task is seen equally often, and towards
    infinity tasks have equal turns.

    The papers draw the task at random. Here turns are spread evenly, which gives the shares exactly and without
    gaps: batch k of task t is due at (k + 1/2) / w_t, and steps go through the batches as they are due, the first task
    first where two are due at once. After n steps a task has had n p_t batches, up to (1 + (T - 2) p_t) / 2 of one.

    Args:
        lengths: n_t by task.
        temperature: τ, 1 or more: 1 is `proportional`, 5 is usual, and large ones come near `round-robin`.

    Raises:
        RecipeError: `temperature` is below 1 or not finite.

    Attributes:
        steps_per_epoch: Steps that show every image of every task at least once.
    """

    def __init__(self, lengths: Mapping[str, int], *, temperature: float) -> None:
        if not (temperature >= 1 and math.isfinite(temperature)):
            raise RecipeError(f"temperature: must be 1 or more and finite, got {temperature:g}")
        self._tasks = tuple(lengths)
        counts = [*lengths.values()]
        self._weights = [round(_UNIT * count ** (1 / temperature)) for count in counts]
        # When the last task has shown each of its images once; all times are doubled, which avoids the halves.
        last = max(self._next(turn, [count - 1 for count in counts]) for turn in range(len(counts)))
        # And as many as its share asks for, so that several epochs show them as often.
        shares = (-(-count * sum(self._weights) // weight) for count, weight in zip(counts, self._weights, strict=True))
        self.steps_per_epoch = max(sum(self._due(last)), *shares)

    def _due(self, time: Fraction) -> list[int]:
        """Batches of each task that are due up to a time, that time included."""
        return [int(time * weight + 1) // 2 for weight in self._weights]

    def draws(self, steps: int) -> dict[str, int]:
        """Batches that are due up to step n: nearly all of them counted, and the last up to T gone through."""
        # Each task's count is within 1/2 of its share, so T/2 steps earlier no more than n batches are due.
        counts = self._due(Fraction(max(2 * steps - len(self._tasks), 0), sum(self._weights)))
        due = [(self._next(turn, counts), turn) for turn in range(len(counts))]
        heapq.heapify(due)
        for _ in range(steps - sum(counts)):
            _, turn = due[0]
            counts[turn] += 1
            heapq.heapreplace(due, (self._next(turn, counts), turn))
        return dict(zip(self._tasks, counts, strict=True))

    def _next(self, turn: int, counts: list[int]) -> Fraction:
        """When a task's next batch is due, after `counts` of each."""
        return Fraction(2 * counts[turn] + 1, self._weights[turn])


class Proportional:
    """One task a step, each as often as it has batches, turns spread evenly: all images are seen equally often.

    Args:
        lengths: By task, the batches that show each of its images once.

    Attributes:
        steps_per_epoch: Steps that show every image of every task once.
    """

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self._spread = Temperature(lengths, temperature=1.0)
        self.steps_per_epoch = self._spread.steps_per_epoch

    def draws(self, steps: int) -> dict[str, int]:
        """The draws of a temperature of 1."""
        return self._spread.draws(steps)
