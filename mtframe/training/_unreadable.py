"""A training whose images cannot be read stops, and says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtframe.data import Batch
from mtframe.errors import TrainingError, one_line
from mtframe.hooks import hookimpl

from ._log import LOG

# Images that the message names.
_NAMED = 10


class UnreadableImages:
    """Logs once each image that could not be read, and ends a training that has too many of them.

    Args:
        most: How many different ones are tolerated (`train.max_unreadable`).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._reasons: dict[str, None] = {}

    @hookimpl
    def step_started(self, batches: Sequence[Mapping[str, Batch]]) -> None:
        """Looks through a step's batches. Raises TrainingError if there are too many by now."""
        for task, batch in ((task, batch) for by_task in batches for task, batch in by_task.items()):
            for reason in batch.skipped:
                if reason not in self._reasons:
                    self._reasons[reason] = None
                    LOG.warning("task %s: skipped an unreadable image: %s", task, one_line(reason))
        if len(self._reasons) > self._most:
            raise TrainingError(
                f"{len(self._reasons)} images cannot be read, more than train.max_unreadable={self._most}:\n  "
                + "\n  ".join(map(one_line, list(self._reasons)[:_NAMED]))
            )
