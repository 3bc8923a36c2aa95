"""Ctrl-C and SIGTERM: a training that is asked to end does so after the step that it is in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mtframe.errors import MtframeError


class Interrupted(MtframeError):
    """Training was stopped by Ctrl-C (or SIGTERM) after saving. Exit code 130, as shells expect."""

    exit_code = 130


class Interruption:
    """Whether somebody has asked a training to end.

    Attributes:
        asked: Whether somebody has.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, Ctrl-C or SIGTERM asks; a second Ctrl-C raises KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            # Not a second SIGTERM: `timeout` sends one to the process and one to its group.
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = True

        # None for a handler that was not installed by Python, which cannot be put back.
        previous: dict[int, Callable[..., Any] | int | None] = {
            number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
