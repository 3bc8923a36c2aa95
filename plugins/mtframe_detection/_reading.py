"""What the readers of all formats refuse: unknown splits, files that are no text, lists of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mtframe.errors import DataError, RecipeError
from mtframe.paths import regular

# How many offenders a message names.
NAMED = 3

# Part of a split's images whose labels may be wrong where nothing is said: one in thirty, not one in ten.
BAD_LABELS = 0.05

# Reasons for leaving out, in words.
WRONG_LABELS = "images whose labels are wrong"


def check_split(dataset: str, split: str, splits: Sequence[str]) -> None:
    """Raises RecipeError for a split that the data set does not know."""
    if split not in splits:
        raise RecipeError(f"{dataset}: no split {split!r}; it has {', '.join(splits)}")


def read_text(file: Path, most: int | None = None) -> str:
    """What is in a text file.

    Args:
        file: Its path.
        most: Bytes that it may have.

    Raises:
        DataError: It cannot be read, is longer, or is not UTF-8; with the file.
    """
    try:
        return regular(file, most).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{file}: not a text file (expected UTF-8)") from None


def check_part(**options: float) -> None:
    """Raises RecipeError for an option that is no part of a whole, 0 to below 1."""
    for name, value in options.items():
        if not 0 <= value < 1:
            raise RecipeError(f"{name}: must be 0 or more and below 1, got {value:g}")


def excuse(problems: Mapping[int, Sequence[str]], images: int, part: float, what: str, wrong: str) -> tuple[str, ...]:
    """What to say of images that are left out since their labels are wrong, if these are few.

    Args:
        problems: By image, place and reason of each thing that is wrong.
        images: How many there are in all.
        part: Of them, how many may be left out (the option `bad_labels`).
        what: Data set and split.
        wrong: What is wrong, behind a count of it.

    Raises:
        DataError: They are more.
    """
    if not problems:
        return ()
    told = [one for its in problems.values() for one in its]
    if len(problems) > part * images:
        allowed = f"as many as {part:.0%} of them may be left out (bad_labels)"
        refuse(told, f"{what}: {len(told)} {wrong}, of {len(problems)} of {images} images; {allowed}")
    more = f"; and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return (
        f"{what}: {len(problems)} of {images} images are left out, since their labels are wrong: "
        f"{'; '.join(told[:NAMED])}{more}",
    )


def refuse(problems: Sequence[str], what: str) -> None:
    """Raises one DataError that counts all problems and names the first.

    Args:
        problems: Place and reason of each.
        what: What the message begins with.
    """
    if problems:
        more = [f"... and {len(problems) - NAMED} more"] if len(problems) > NAMED else []
        raise DataError("\n  ".join([what, *problems[:NAMED], *more]))
