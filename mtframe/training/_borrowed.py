"""A training in which a task finds no label for the images that it borrows stops, and says what may be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtframe.data import Batch
from mtframe.errors import TrainingError
from mtframe.hooks import hookimpl


class BorrowedLabels:
    """Ends a training if a whole epoch passes without one label of a task that uses another one's images.

    Args:
        lenders: By task that borrows images, the task that lends them.
        due: The step by which a label has been seen, or there is none.
    """

    def __init__(self, lenders: Mapping[str, str], due: int) -> None:
        self._waiting = dict(lenders)
        self._due = due

    @hookimpl
    def step_started(self, step: int, batches: Sequence[Mapping[str, Batch]]) -> None:
        """Crosses off the tasks that know something of a step's batches. Raises TrainingError if one is overdue."""
        if not self._waiting:
            return
        for batch in (batch for by_task in batches for batch in by_task.values()):
            for task in self._waiting.keys() & batch.targets.keys():
                del self._waiting[task]
        if self._waiting and step >= self._due:
            task, lender = next(iter(self._waiting.items()))
            raise TrainingError(
                f"tasks.{task}.dataset has no label for any image of task {lender!r}, whose images it uses. It finds "
                f"them by their paths below root: are both roots the same folder, and the paths complete?"
            )
