"""Many names in two arrays."""

# Shapes: N names, L bytes of all of them.

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np

# Half pairs of surrogates too, which stand for bytes of files' names that are no text.
_TEXT = ("utf-8", "surrogatepass")


class Names:
    """N names, such as images' paths. Picklable, and shared by worker processes, which would copy an object each.

    An array of text has the width of its longest name in every row: one of 200,000 letters among 100,000 files would
    take gigabytes. Here each takes its own bytes and a number.

    Args:
        names: The names, any text; also bytes of a file's name that are none, as Python has them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [_encode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        """A name, by its place from 0 on."""
        return self._encoded(index).decode(*_TEXT)

    def tolist(self) -> list[str]:
        """All names."""
        return [self[index] for index in range(len(self))]

    def order(self) -> np.ndarray:
        """(N,) int64, the places of the names in the order of their bytes."""
        return np.array(sorted(range(len(self)), key=self._encoded), np.int64)

    def chosen(self, places: np.ndarray) -> Names:
        """The names at some places, (M,) int64, or where (N,) bool is true."""
        places = np.flatnonzero(places) if places.dtype == bool else places
        return Names(self[int(place)] for place in places)

    def place_of(self, name: str) -> int | None:
        """Where a name stands among names in the order of their bytes; None if it does not."""
        wanted = _encode(name)
        place = bisect_left(range(len(self)), wanted, key=self._encoded)
        return place if place < len(self) and self._encoded(place) == wanted else None

    def _encoded(self, index: int) -> bytes:
        return self._bytes[self._ends[index] : self._ends[index + 1]].tobytes()


def _encode(name: str) -> bytes:
    return name.encode(*_TEXT)
