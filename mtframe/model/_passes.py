"""What one pass through modules knows, kept with the pass and not on the modules.

Modules are shared: by threads that call one model at once, and by the passes of one call. What a pass sets on a module,
another one reads. So modules hold a `PerPass`, which has no state, and find in it what their own pass has put there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# One variable for all: those that are made at run time are never freed. By identity, so that models do not mix.
_VALUES: ContextVar[Mapping[PerPass[Any], Any]] = ContextVar("mtframe_passes", default=MappingProxyType({}))


class PerPass(Generic[T]):
    """A value for the time of one pass; each thread has its own, and none of another's.

    A deep copy of the modules that hold it has a copy of it too, so that passes of both do not meet. In a backward pass
    that computes activations again there is none: it is over by then, and that may be another thread.
    """

    @contextmanager
    def use(self, value: T) -> Iterator[None]:
        """Within it, `get` gives this value; after it, what it gave before."""
        token = _VALUES.set({**_VALUES.get(), self: value})
        try:
            yield
        finally:
            _VALUES.reset(token)

    def get(self) -> T | None:
        """What the innermost `use` says; None outside of any."""
        value: T | None = _VALUES.get().get(self)
        return value
