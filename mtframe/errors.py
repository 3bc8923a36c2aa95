"""Errors a user can act on.

Every message says what was expected, what came, where, and what to do next. The command line prints such an
error as one message and exits with its code; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import logging
import shlex
import traceback
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class MtframeError(Exception):
    """The work failed for a reason the user can act on. Exit code 1."""

    exit_code = 1


class RecipeError(MtframeError):
    """The recipe or the call is wrong: an unknown name, option or value. Exit code 2."""

    exit_code = 2


class PluginError(RecipeError):
    """A named component cannot be used: not installed, ambiguous, or broken at import. Exit code 2."""


@dataclass(frozen=True)
class Code:
    """A Python file of a run.

    Attributes:
        file: Where it is.
        digest: Its SHA-256, in hexadecimal.
    """

    file: Path
    digest: str


class UntrustedError(RecipeError):
    """A run has code of its own that nobody has agreed to run. Exit code 2.

    Attributes:
        code: It.
    """

    def __init__(self, message: str, code: Sequence[Code] = ()) -> None:
        super().__init__(message)
        self.code = tuple(code)


class DataError(MtframeError):
    """Files on disk are not what the data set's format promises. Exit code 1."""


class BadImageError(DataError):
    """One image file cannot be read. Skipped and counted by the loader up to a limit."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{one_line(path)}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # The default would call __init__ with the one joined message, and worker processes pickle errors.
        return type(self), (self.path, self.reason)


class BadLabelError(BadImageError):
    """The label of one image is wrong, as a mask of another size: the image goes without it, as one that is unreadable.

    The path may be that of a file of its own.
    """


class TrainingError(MtframeError):
    """Training cannot go on: a NaN loss, a full disk, too many unreadable images. Exit code 1."""


class StarvedError(TrainingError):
    """Memory is short, or a process that reads images is gone or never answers. Exit code 1.

    It comes between two steps: what is trained is as the last step left it.
    """


class CheckpointError(MtframeError):
    """A checkpoint does not fit the model, or is not complete. Exit code 1."""


def described(error: BaseException) -> str:
    """The type and message of an exception, whatever a stranger's `__str__` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def amount(size: float) -> str:
    """Bytes, for people."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} bytes"


def is_memory_short(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had: Python's, numpy's and torch's own all differ."""
    said = isinstance(error, RuntimeError) and any(
        words in str(error)
        for words in ("can't allocate memory", "bad_alloc", "not enough memory", "unable to allocate shared memory")
    )
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # By name: torch is not imported here.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said


def printable(text: str) -> str:
    """Text without control characters, which a stranger's names could steer a terminal with; lines stay lines."""
    return "".join(letter if letter in "\n\t" or _is_harmless(letter) else _escaped(letter) for letter in text)


def one_line(name: object) -> str:
    """A stranger's name as it stands in a line of a message: printable, and it begins no line of its own."""
    return "".join(letter if _is_harmless(letter) else _escaped(letter) for letter in str(name))


def _is_harmless(letter: str) -> bool:
    # Spaces of other widths are no more than spaces; separators of lines and paragraphs end lines.
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def one_message(text: str) -> str:
    """A message as it is shown: printable, and its further lines indented.

    A name with a line break in it begins no line that could pass for a message of its own.
    """
    first, *others = printable(text).split("\n")
    return "\n".join([first, *(line if not line or line[0] in " \t" else f"  {line}" for line in others)])


class Printable(logging.Filter):
    """Has a log say what it says as `one_message`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record, and keeps it."""
        record.msg, record.args = one_message(record.getMessage()), None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = one_message(logging.Formatter().formatException(record.exc_info))
        return True


def pasted(argument: object) -> str:
    """An argument as a command to paste needs it: a path may have spaces, and a stranger's more than that.

    One with control characters or line breaks is only shown.
    """
    return shlex.quote(one_line(argument))


def raised_at(error: BaseException) -> str:
    """Where an exception was raised, `heads.py:12 in __init__`; empty if that is unknown."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
