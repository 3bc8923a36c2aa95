"""What the readers of all formats refuse: unknown splits, and files that are no text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtframe.errors import DataError, RecipeError
from mtframe.paths import regular


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
