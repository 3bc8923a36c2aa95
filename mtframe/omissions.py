"""What is wrong in lists and labels, line by line or image by image: left out, counted and told, if it is few."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

from mtframe.errors import DataError, RecipeError

# Part of a split whose labels may be wrong where nothing is said: one image in thirty, not one in ten.
BAD_LABELS = 0.05

# Reason for leaving out, in words.
WRONG_LABELS = "images whose labels are wrong"

# How many offenders a message names.
NAMED = 3

# Of fewer, one that is wrong is no slip.
_SEVERAL = 3

Said = str | Callable[[], str]


class Mistakes:
    """What is wrong with some of many things, such as the images of a split or the lines of a list."""

    def __init__(self) -> None:
        self._said: dict[Hashable, list[Said]] = {}

    def __len__(self) -> int:
        """How many things something is wrong with."""
        return len(self._said)

    def __contains__(self, thing: Hashable) -> bool:
        return thing in self._said

    def add(self, thing: Hashable, said: Said | None = None) -> None:
        """Adds a mistake.

        Args:
            thing: What it is in: an image or a line, by any name that tells it from others.
            said: Place and reason. A function is called only for those that are named, as a suggestion takes long. None
                where another thing's mistake says it.
        """
        self._said.setdefault(thing, []).extend([] if said is None else [said])

    def lines(self) -> list[str]:
        """The first few mistakes, and how many more there are."""
        told = [one for its in self._said.values() for one in its]
        more = [f"... and {len(told) - NAMED} more"] if len(told) > NAMED else []
        return [*(one if isinstance(one, str) else one() for one in told[:NAMED]), *more]

    def excused(
        self, whole: int, part: float, what: str, things: str, why: str = "their labels are wrong"
    ) -> tuple[str, ...]:
        """What to say of what is left out; nothing if nothing is wrong.

        Args:
            whole: How many things there are, those that are wrong among them.
            part: Of them, how many may be left out (the option `bad_labels`); see `most_wrong`.
            what: What the message begins with: data set and split, or a file.
            things: What they are, as `images`.
            why: Why they are left out.

        Raises:
            DataError: More are wrong.
        """
        if not self:
            return ()
        number, lines = len(self), self.lines()
        if not few_enough(number, whole, part):
            said = (
                f"{what}: {number} of {whole} {things} would have to be left out, since {why}; "
                f"at most {most_wrong(whole, part)} may be (bad_labels={part:g})"
            )
            raise DataError("\n  ".join([said, *lines]))
        return (f"{what}: {number} of {whole} {things} are left out, since {why}: {'; '.join(lines)}",)


def most_wrong(whole: int, part: float) -> int:
    """How many of some things may be left out since they are wrong.

    The part of them, rounded down, but one of three or more in any case: one bad line is a slip, however short the
    list. None where the part is 0.
    """
    # What is 0.29 times 100 is 28.999999999999996.
    return max(int(part > 0 and whole >= _SEVERAL), math.floor(part * whole + 1e-9))


def few_enough(number: int, whole: int, part: float) -> bool:
    """Whether so many of some things may be left out since they are wrong; see `most_wrong`."""
    return number <= most_wrong(whole, part)


def check_part(**options: float) -> None:
    """Raises RecipeError for an option that is no part of a whole, 0 to below 1."""
    for name, value in options.items():
        if not 0 <= value < 1:
            raise RecipeError(f"{name}: must be 0 or more and below 1, got {value:g}")


def refuse(problems: Sequence[str], what: str) -> None:
    """Raises one DataError that counts all problems and names the first, if there is any.

    Args:
        problems: Place and reason of each.
        what: What the message begins with.
    """
    if problems:
        more = [f"... and {len(problems) - NAMED} more"] if len(problems) > NAMED else []
        raise DataError("\n  ".join([what, *problems[:NAMED], *more]))
