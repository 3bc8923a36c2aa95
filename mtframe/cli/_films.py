"""How far a film is, on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtframe.errors import one_line


class FilmBar:
    """A bar with a film's seconds and the time left, on the standard error; on what is no terminal nothing."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._file: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, file: Path, done: float, length: float | None) -> None:
        """Shows how many seconds of a film are done, and of how many; of a camera there is no end."""
        if self._bar is None:
            console = Console(stderr=True)
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.1f} s of film"),
                TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
            )  # fmt: skip
            self._bar.start()
        if file != self._file:
            if self._file is not None:
                self._bar.remove_task(self._task)
            # A name may hold [brackets], which are no markup.
            self._task, self._file = self._bar.add_task(escape(one_line(file.name)), total=length), file
        self._bar.update(self._task, completed=done)
