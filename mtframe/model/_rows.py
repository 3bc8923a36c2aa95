"""Whose rows a pass through shared layers holds: said by sharing schemes, read by what tells tasks' gradients apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_current: list[dict[str, int]] = []


@contextmanager
def rows_of(counts: Mapping[str, int]) -> Iterator[None]:
    """Within it, the images of a batch belong to these tasks, one task's after the other's.

    A sharing scheme opens it around each pass through what its tasks share. One that does not still works with every
    balancer: gradients then take a backward pass a task.

    Args:
        counts: Number of images by task, in the order of the rows; 64 windows an image are as good as one row.
    """
    _current.append(dict(counts))
    try:
        yield
    finally:
        _current.pop()


def current_rows() -> dict[str, int] | None:
    """What the innermost `rows_of` says; None outside of any."""
    return _current[-1] if _current else None
