"""What a training reports of itself every few steps."""

from __future__ import annotations

import time

from ._optim import learning_rate
from ._parts import TrainingParts
from ._state import TrainingState


class Report:
    """Values for the hook `metrics_logged`, over the steps since the last report.

    Args:
        parts: What is trained.
        state: How far it is.
        accumulate: Batches in a step.
    """

    def __init__(self, parts: TrainingParts, state: TrainingState, accumulate: int) -> None:
        self._parts, self._state, self._accumulate = parts, state, accumulate
        self.restart()

    def restart(self) -> None:
        """Leaves out of the speed what took time until now, such as an evaluation."""
        self._since = time.monotonic(), self._state.step

    def values(self) -> dict[str, float]:
        """Epoch, learning rate, speed, how often images were seen, and means of the losses."""
        state, length = self._state, self._parts.length
        then, at = self._since
        self.restart()
        seconds = max(self._since[0] - then, 1e-9)
        return {
            "epoch": state.step / length.steps_per_epoch,
            "lr": learning_rate(self._parts.optimizer),
            "images_per_second": (state.step - at) * length.images_per_step / seconds,
            **{f"epochs_{task}": seen for task, seen in self.seen().items()},
            **state.meter.take(),
        }

    def seen(self) -> dict[str, float]:
        """By task, how often training has shown each of its images so far."""
        return self._parts.batches.epochs(self._state.step * self._accumulate)
