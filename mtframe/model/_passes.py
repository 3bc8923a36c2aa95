"""What one pass through modules knows, kept with the pass and not on the modules.

Modules are shared: by threads that call one model at once, and by the passes of one call. What a pass sets on a module,
another one reads. So modules hold a `PerPass`, which has no state, and find in it what their own pass has put there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Thread(threading.local):
    """Not a context variable, which torch.compile and torch.export cannot follow; and no pass awaits a coroutine."""

    def __init__(self) -> None:
        self.values: Mapping[PerPass[Any], Any] = {}


_THREAD = _Thread()


class PerPass(Generic[T]):
    """A value for the time of one pass; each thread has its own, and none of another's.

    A deep copy of the modules that hold it has a copy of it too, so that passes of both do not meet. In a backward pass
    that computes activations again there is none: it is over by then, and that may be another thread.
    """

    @contextmanager
    def use(self, value: T) -> Iterator[None]:
        """Within it, `get` gives this value; after it, what it gave before."""
        before = _THREAD.values
        _THREAD.values = {**before, self: value}
        try:
            yield
        finally:
            _THREAD.values = before

    def get(self) -> T | None:
        """What the innermost `use` says; None outside of any."""
        value: T | None = _THREAD.values.get(self)
        return value
