"""In which steps tasks can be compared."""

from __future__ import annotations

from mtframe.data import MixedBatches
from mtframe.errors import RecipeError
from mtframe.gradients import GradientEngine


class Meetings:
    """Which steps have as many tasks in one batch as any has: steps that are measured are taken from these.

    Every k-th step could miss a task that trains in every second one for good.

    Args:
        batches: What steps train on.
        accumulate: Batches in a step.
    """

    def __init__(self, batches: MixedBatches, accumulate: int = 1) -> None:
        self.batches = batches
        self.accumulate = accumulate
        self._with_data = {task: tuple(source.viewers) for task, source in batches.sources.items()}
        self.trained = frozenset(task for tasks in self._with_data.values() for task in tasks)
        self.most = self._most()

    def due(self, step: int, every: int) -> bool:
        """Whether a step, counted from 1, is the first such one at or after a multiple of `every`."""
        if step < every or self._tasks(step) < self.most:
            return False
        return all(self._tasks(earlier) < self.most for earlier in range(step // every * every, step))

    def _most(self) -> int:
        most = 0
        for batch in range(self.batches.schedule.steps_per_epoch):
            most = max(most, self._in_batch(batch))
            if most == len(self.trained):
                break
        return most

    def _tasks(self, step: int) -> int:
        return max(self._in_batch((step - 1) * self.accumulate + i) for i in range(self.accumulate))

    def _in_batch(self, number: int) -> int:
        return sum(len(self._with_data[source]) for source in self.batches.at(number))


def check_comparable(engine: GradientEngine, meetings: Meetings, what: str) -> None:
    """Raises RecipeError if no two tasks meet in trained parameters and in a step; `what` asks for it."""
    tasks = [task for task in engine.model.tasks if task in meetings.trained]
    if len(tasks) < 2:
        others = ", ".join(task for task in engine.model.tasks if task not in tasks)
        kept = f" that is trained; what is kept or distilled ({others}) is not measured. Leave it out" if others else ""
        raise RecipeError(f"{what}: compares tasks, and {tasks[0]!r} is the only one{kept}")
    if not engine.shared_parameters():
        raise RecipeError(
            f"{what}: tasks {', '.join(tasks)} have no trained parameters in common, so there is nothing to compare. "
            "Share some stages (sharing=network), or leave the backbone unfrozen"
        )
    if meetings.most < 2:
        raise RecipeError(f"{what}: compares tasks in one step, and none has two of them; use train.schedule=joint")
