"""Which frames of a film are wanted."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mtframe.errors import RecipeError

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


def seconds(text: str, option: str) -> float:
    """A time as it is written, in seconds: `90`, `1:30`, `0:01:30.5`.

    Args:
        text: It.
        option: What a message names.

    Raises:
        RecipeError: It is no time.
    """
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        raise RecipeError(f"{option}: expected seconds or a time, as 90, 1:30 or 0:01:30.5, got {text!r}")
    hours, minutes, rest = found.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest)


@dataclass(frozen=True, slots=True)
class Cut:
    """Which frames of a film are wanted.

    Attributes:
        frames: Every so many of them.
        interval: Or one each time so many seconds are over; None for `frames`.
        start: Seconds of the film from which on frames are wanted.
        end: Seconds before which they are; None for the film's end.
    """

    frames: int = 1
    interval: float | None = None
    start: float = 0.0
    end: float | None = None

    @classmethod
    def of(cls, every: int | str = 1, start: float = 0.0, end: float | None = None) -> Cut:
        """Checks what somebody asks for.

        Args:
            every: `5` for every fifth frame, `0.5s` for one each half second.
            start: Seconds.
            end: Seconds.

        Raises:
            RecipeError: It is nothing of the kind.
        """
        frames, interval = _every(every)
        if not (math.isfinite(start) and start >= 0):
            raise RecipeError(f"--from: expected seconds from 0 on, got {start!r}")
        if end is not None and not end > start:
            raise RecipeError(f"--to: expected a time after {start:g} s, where it begins, got {end!r}")
        return cls(frames, interval, start, end)


def _every(every: int | str) -> tuple[int, float | None]:
    """Frames, or seconds."""
    text = str(every).strip()
    if isinstance(every, int | str) and not isinstance(every, bool):
        if re.fullmatch(r"\d{1,9}", text) and int(text) > 0:
            return int(text), None
        if (found := re.fullmatch(r"(\d{1,9}(?:\.\d+)?|\.\d+) ?s", text)) and float(found[1]) > 0:
            return 1, float(found[1])
    raise RecipeError(
        f"--every: expected a number of frames, as 5, or of seconds with an s behind it, as 0.5s, got {every!r}"
    )
