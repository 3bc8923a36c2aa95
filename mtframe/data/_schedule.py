"""Schedules: which tasks train at which step, as a pure function of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate


class Schedule(ABC):
    """Which tasks train when.

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
    def at(self, step: int) -> dict[str, int]:
        """The tasks that train in a step, each with the number of its own batch, counted from 0."""

    def draws(self, steps: int) -> dict[str, int]:
        """By task, how many batches the first `steps` steps take."""
        return Counter(task for step in range(steps) for task in self.at(step))


class Joint(Schedule):
    """Every task in every step; shorter tasks go round more often."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self.steps_per_epoch = max(lengths.values())

    def at(self, step: int) -> dict[str, int]:
        """All tasks."""
        return dict.fromkeys(self.tasks, step)


class RoundRobin(Schedule):
    """One task a step, in turn; shorter tasks go round more often."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self.steps_per_epoch = len(lengths) * max(lengths.values())

    def at(self, step: int) -> dict[str, int]:
        """The task whose turn it is."""
        number, turn = divmod(step, len(self.tasks))
        return {self.tasks[turn]: number}


class Epochs(Schedule):
    """One task after the other: in each epoch all batches of the first task, then all of the second, and so on."""

    def __init__(self, lengths: Mapping[str, int]) -> None:
        super().__init__(lengths)
        self._ends = tuple(accumulate(lengths.values()))
        self.steps_per_epoch = self._ends[-1]

    def at(self, step: int) -> dict[str, int]:
        """The task whose part of the epoch it is."""
        epoch, position = divmod(step, self.steps_per_epoch)
        turn = next(turn for turn, end in enumerate(self._ends) if position < end)
        start = self._ends[turn - 1] if turn else 0
        return {self.tasks[turn]: epoch * (self._ends[turn] - start) + position - start}


SCHEDULES: dict[str, type[Schedule]] = {"joint": Joint, "round-robin": RoundRobin, "epochs": Epochs}
