"""How a training shows on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text
from torch import Tensor

from mtframe.errors import one_line
from mtframe.hooks import hookimpl

if TYPE_CHECKING:
    from ._trainer import Trainer


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed * task.fields['images']:.0f} images/s", style="cyan")


class Progress:
    """Shows training on a terminal: a bar with losses, images per second and time left; scores as they come.

    Args:
        console: Where it is shown; on one that is no terminal, a line for each evaluation and no bar.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _ImagesPerSecond(),
            TextColumn("{task.fields[losses]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._steps = 0
        self._trainer: Trainer | None = None
        self._task = TaskID(0)

    @hookimpl
    def training_started(self, trainer: Trainer) -> None:
        """Opens the bar."""
        self._steps, self._trainer = trainer.steps, trainer
        self._bar.start()
        self._task = self._bar.add_task(
            "training",
            total=trainer.steps,
            completed=trainer.step,
            images=trainer.parts.length.images_per_step,
            losses="",
        )

    @hookimpl
    def step_ended(self, step: int, losses: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Moves it."""
        # Reading a loss waits for the device, so not at every step.
        if step % 10 == 0 or step == self._steps:
            shown = "  ".join(f"{task} {float(sum(named.values())):.3f}" for task, named in losses.items())
            self._bar.update(self._task, losses=shown)
        self._bar.update(self._task, completed=step)

    @hookimpl
    def evaluation_ended(self, step: int, scores: Mapping[str, float]) -> None:
        """Prints each task's score, which ranks checkpoints; of one that is n/a why."""
        latest = self._trainer.evaluations.latest if self._trainer is not None else {}
        said = {task: f"{score:.4f}" for task, score in scores.items()} | {
            task: one_line(latest[task].shown) for task in scores if task in latest
        }
        shown = ", ".join(f"{task} {text}" for task, text in said.items())
        self.console.print(f"step {step}: {shown}", markup=False, highlight=False)

    @hookimpl
    def training_ended(self, error: BaseException | None) -> None:
        """Closes the bar."""
        self._bar.stop()
