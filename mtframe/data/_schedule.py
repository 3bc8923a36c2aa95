"""Schedules: which tasks train at which step, as a pure function of the step."""

# Symbols: n steps done, p_t a task's share of them, w_t its weight, T tasks.

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import accumulate

# What a task's batches to the power 1 / temperature are counted in. Whole numbers, so that an order is exact.
_UNIT = 2**20


class Schedule(ABC):
    """Which tasks train when: one says how many batches of each have been taken after n steps, for any n.

    Everything else follows, so that a step a million on costs what the first does.

    Args:
        lengths: By task, the batches that show each of its images once.

    Attributes:
        tasks: Names of the tasks.
        steps_per_epoch: Steps that show every image of every task at least once.
    """

    steps_per_epoch: int

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.tasks = tuple(lengths)

    @abstractmethod
    def draws(self, steps: int) -> dict[str, int]:
        """By task, how many batches the first `steps` steps take; a further step takes at most one more of each."""

    def at(self, step: int) -> dict[str, int]:
        """The tasks that train in a step, each with the number of its own batch, counted from 0."""
        before, after = self.draws(step), self.draws(step + 1)
        return {task: before[task] for task in self.tasks if after[task] > before[task]}


class Joint(Schedule):
    """Every task in every step; shorter tasks go round more often.

    Args:
        lengths: By task, the batches that show each of its images once.
        every: By task, k: it takes part in steps 0, k, 2k and so on. 1 for those that are not named; of one task at
            least, since a step would else train nothing.
    """

    def __init__(self, lengths: Mapping[str, int], *, every: Mapping[str, int] | None = None) -> None:
        super().__init__(lengths)
        self._every = {task: (every or {}).get(task, 1) for task in lengths}
        self.steps_per_epoch = max(length * self._every[task] for task, length in lengths.items())

    def draws(self, steps: int) -> dict[str, int]:
        """All tasks, those that are due less often once in so many steps."""
        return {task: -(-steps // every) for task, every in self._every.items()}


class RoundRobin(Schedule):
    """One task a step, in turn; shorter tasks go round more often."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self.steps_per_epoch = len(lengths) * max(lengths.values())

    def draws(self, steps: int) -> dict[str, int]:
        """One of each task a turn."""
        return {task: (steps + len(self.tasks) - 1 - turn) // len(self.tasks) for turn, task in enumerate(self.tasks)}


class Epochs(Schedule):
    """One task after the other: in each epoch all batches of the first task, then all of the second, and so on."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
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


class Temperature(Schedule):
    """One task a step, each as often as the power 1 / temperature of its batches says.

    p_t ∝ w_t = n_t^(1/τ) with n_t the batches that show each of its images once (arXiv:1910.10683, sec. 3.5.2, after
    arXiv:1907.05019; there n_t are examples). At τ = 1 every image of every task is seen equally often, and towards
    infinity tasks have equal turns.

    The papers draw the task at random. Here turns are spread evenly, which gives the shares exactly and without
    gaps: batch k of task t is due at (k + 1/2) / w_t, and steps go through the batches as they are due, the first task
    first where two are due at once. After n steps a task has had n p_t batches, up to (1 + (T - 2) p_t) / 2 of one.

    Args:
        lengths: n_t by task.
        temperature: τ, 1 or more.
    """

    def __init__(self, lengths: Mapping[str, int], *, temperature: float) -> None:
        super().__init__(lengths)
        counts = [*lengths.values()]
        self._weights = [round(_UNIT * count ** (1 / temperature)) for count in counts]
        # When the last task has shown each of its images once; all times are doubled, which spares the halves.
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
        counts = self._due(Fraction(max(2 * steps - len(self.tasks), 0), sum(self._weights)))
        due = [(self._next(turn, counts), turn) for turn in range(len(counts))]
        heapq.heapify(due)
        for _ in range(steps - sum(counts)):
            _, turn = due[0]
            counts[turn] += 1
            heapq.heapreplace(due, (self._next(turn, counts), turn))
        return dict(zip(self.tasks, counts, strict=True))

    def _next(self, turn: int, counts: list[int]) -> Fraction:
        """When a task's next batch is due, after so many of each."""
        return Fraction(2 * counts[turn] + 1, self._weights[turn])


class Proportional(Temperature):
    """One task a step, each as often as it has batches, turns spread evenly: all images are seen equally often."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths, temperature=1.0)


# What each takes besides `lengths` is a keyword.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "joint": Joint,
    "round-robin": RoundRobin,
    "epochs": Epochs,
    "proportional": Proportional,
    "temperature": Temperature,
}
