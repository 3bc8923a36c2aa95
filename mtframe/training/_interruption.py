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


class StopNow(BaseException):
    """Raised by a signal where nothing can be lost. No Exception: nobody's data set is to take it for an error."""


# SIGHUP is what a closed terminal sends.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interruption:
    """Whether somebody has asked a training to end.

    Attributes:
        asked: Whether somebody has.
    """

    def __init__(self) -> None:
        self.asked = False
        self._safe = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, Ctrl-C, SIGTERM or SIGHUP asks; a second Ctrl-C raises KeyboardInterrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            # Not a second SIGTERM: `timeout` sends one to the process and one to its group.
            if self.asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = True
            if self._safe:
                raise StopNow

        # `nohup` and a shell's background ignore signals on purpose, which a program is to leave so.
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        # None for a handler that was not installed by Python, which cannot be put back.
        previous: dict[int, Callable[..., Any] | int | None] = {number: signal.signal(number, ask) for number in heard}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it, asking raises StopNow: for waits that may be long, and what can be done again from the start."""
        if self.asked:
            raise StopNow
        self._safe += 1
        try:
            yield
        finally:
            self._safe -= 1
