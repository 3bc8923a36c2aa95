"""Reading ahead: an iterator runs in a thread of its own, a little before whoever uses what it gives."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")

# Seconds after which a thread that waits looks whether anybody still wants what it has.
_LOOK = 0.1


class _End:
    """What comes last, with what ended it, if something did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def read_ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """What an iterator gives, which runs in a thread; what it raises is raised here.

    Closed before its end, it waits for the item that the thread is at, and for no more.

    Args:
        items: The iterator.
        most: Items that may wait to be taken.
    """
    waiting: Queue[T | _End] = Queue(most)
    stopped = threading.Event()

    def put(item: T | _End) -> None:
        while not stopped.is_set():
            with suppress(Full):
                waiting.put(item, timeout=_LOOK)
                return

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as raised:
            error = raised
        put(_End(error))

    thread = threading.Thread(target=read, name="mtframe-film", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        with suppress(Empty):
            while True:
                waiting.get_nowait()
        thread.join()
