"""What TensorBoard shows of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mtframe.errors import RecipeError
from mtframe.files import check_run_folder
from mtframe.hooks import hookimpl


class TensorBoard:
    """Writes `tensorboard/` into the run: losses, learning rate and speed while it trains, every metric of every task.

    Look at it with `tensorboard --logdir runs`. Needs `pip install 'mtframe[tensorboard]'`.

    Args:
        flush_secs: Seconds, at most, until what is logged is on disk.

    Raises:
        RecipeError: TensorBoard is not installed, or `flush_secs` is out of its range.
    """

    def __init__(self, *, flush_secs: int = 30) -> None:
        if flush_secs < 1:
            raise RecipeError(f"flush_secs: must be 1 or more, got {flush_secs}")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RecipeError(
                f"TensorBoard cannot be imported ({error}). Install it with: pip install 'mtframe[tensorboard]'"
            ) from error
        self._make, self._flush_secs = SummaryWriter, flush_secs
        self._writer: Any = None

    @hookimpl
    def training_started(self, trainer: Any) -> None:
        """Opens the log; of a run that goes on, what came after its checkpoint is no longer shown."""
        folder = trainer.run.path / "tensorboard"
        try:
            check_run_folder(folder)
        except OSError as error:
            raise RecipeError(f"{folder} {error.strerror}") from None
        self._writer = self._make(
            str(folder), flush_secs=self._flush_secs,
            purge_step=trainer.step + 1 if trainer.step else None,
        )  # fmt: skip
        if trainer.step == 0:
            # Markdown: four spaces make a block of code.
            self._writer.add_text("recipe", "".join(f"    {line}\n" for line in trainer.recipe.to_yaml().splitlines()))

    @hookimpl
    def metrics_logged(self, step: int, values: Mapping[str, float]) -> None:
        """Losses as `loss/TASK/TERM`, the rest as `train/...`."""
        # A step that is made by hand, outside of a training, has no log.
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"loss/{name}" if "/" in name else f"train/{name}", value, step)

    @hookimpl
    def evaluation_ended(self, step: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Metrics as `TASK/METRIC`; what the data cannot resolve is left out."""
        for task, values in metrics.items():
            for name, value in values.items():
                if not math.isnan(value):
                    self._writer.add_scalar(f"{task}/{name}", value, step)

    @hookimpl
    def training_ended(self) -> None:
        """Closes the log."""
        if self._writer is not None:
            self._writer.close()
