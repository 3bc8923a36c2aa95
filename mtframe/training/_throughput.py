"""How fast a training is."""

from __future__ import annotations

import time


class Throughput:
    """Images per second between two moments of a training.

    Args:
        images_per_step: The mean over steps.
        step: Steps done.
    """

    def __init__(self, images_per_step: float, step: int) -> None:
        self._images_per_step = images_per_step
        self.restart(step)

    def restart(self, step: int) -> None:
        """Leaves out what has passed until now, such as an evaluation."""
        self._since = time.monotonic(), step

    def images_per_second(self, step: int) -> float:
        """Since the last call, or restart."""
        then, at = self._since
        self.restart(step)
        return (step - at) * self._images_per_step / max(self._since[0] - then, 1e-9)
