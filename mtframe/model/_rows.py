"""Whose rows a pass through shared layers holds: said by sharing schemes, read by what tells tasks' gradients apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ._passes import PerPass

_COUNTS = PerPass[dict[str, int]]()


@contextmanager
def rows_of(counts: Mapping[str, int]) -> Iterator[None]:
    """Within it, the images of a batch belong to these tasks, one task's after the other's.

    A sharing scheme opens it around each pass through what its tasks share. One that does not still works with every
    balancer: gradients then take a backward pass per task.

    Args:
        counts: Number of images by task, in the order of the rows; 64 windows per image are as good as one row.
    """
    with _COUNTS.use(dict(counts)):
        yield


def current_rows() -> dict[str, int] | None:
    """What the innermost `rows_of` of this thread says; None outside of any."""
    return _COUNTS.get()
