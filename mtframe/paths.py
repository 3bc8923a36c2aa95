"""Paths that other people name: they lead nowhere else, and what lies there is a file that ends."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath


def stays_inside(name: str) -> bool:
    """Whether a path stays in the folder that it is relative to, on any system."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if not path.name or path.anchor or ".." in path.parts or "\0" in name:
            return False
    return True


def no_name(path: str | os.PathLike[str], error: ValueError) -> OSError:
    """The OSError that Python should raise for a path that no file can have, where it raises a ValueError.

    Args:
        path: With a NUL, letters that the locale's encoding has not, or half a pair of surrogates, as JSON may hold.
        error: What Python raises.
    """
    said = f"is no file's name ({error})"
    if (encoding := sys.getfilesystemencoding()) != "utf-8" and isinstance(error, UnicodeEncodeError):
        said = f"has letters that {encoding}, this locale's encoding, has not; try LC_ALL=C.UTF-8"
    return OSError(errno.EINVAL, said, os.fspath(path))


def regular(path: str | os.PathLike[str], most: int | None = None) -> Path:
    """A path, once it is known that reading it ends: not that of a FIFO, a device or a socket.

    Args:
        path: The path.
        most: Bytes that the file may have.

    Raises:
        OSError: It is no file, or a longer one; or it is not there.
    """
    try:
        status = os.stat(path)
    except ValueError as error:
        raise no_name(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file: a pipe, a device or the like", os.fspath(path))
    if most is not None and status.st_size > most:
        raise OSError(errno.EFBIG, f"has {status.st_size:,} bytes, more than the limit of {most:,}", os.fspath(path))
    return Path(path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
