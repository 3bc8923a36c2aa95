"""The texts and tables of a run, and the digests of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mtframe import files
from mtframe.errors import TrainingError
from mtframe.paths import file_digest as file_digest
from mtframe.paths import regular

# Of a number of steps, at most.
_DIGITS = 18


def write_text(path: Path, text: str) -> None:
    """Writes a file at once: it holds the old text or the new, never a part. Raises TrainingError."""
    try:
        # A link in a stranger's run may lead anywhere.
        files.write_text(path, text, follow=False)
    except OSError as error:
        raise TrainingError(f"{path} could not be written ({error.strerror or error})") from error


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a csv file that a run writes: names and numbers, nothing quoted.

    What was being written when the run was killed, or the disk was full, may be cut off anywhere, and any byte
    damaged. A row with more or fewer cells than columns is left out, and no byte is an error.
    """
    with regular(path).open(encoding="utf-8", errors="replace", newline="") as file:
        lines = [line.rstrip("\r\n").split(",") for line in file]
    columns = lines[0] if lines else []
    return columns, [line for line in lines[1:] if len(line) == len(columns)]


def is_step(cell: str) -> bool:
    """Whether a cell holds a number of steps. Python raises ValueError for a number of thousands of digits."""
    return cell.isascii() and cell.isdecimal() and len(cell) <= _DIGITS


def digest(data: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
