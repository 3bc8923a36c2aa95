"""Files that are never half there: written beside their goal, flushed to the disk and renamed.

All complete files are written through here; a test looks for others. Errors are OSErrors that name the goal, also where
it is a name that no file can have.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mtframe.paths import no_name

# Letters of a goal's name in that of its partial file, which must not be too long where the goal's is not.
_LETTERS = 40

# What a run has besides its recipe, as what is no run may have one: all of these, or a checkpoint, which it has not at
# first. Other projects have files of these names, too, but hardly both.
_OF_A_RUN = ("environment.json", "labels.json")

_PARTIAL = re.compile(r"\..*\.[0-9a-f]{8}\.partial", re.DOTALL)

# How a file is opened to be flushed: Windows wants the right to write.
_TO_FLUSH = os.O_RDWR if os.name == "nt" else os.O_RDONLY

# A file system that cannot flush.
_NO_FLUSHING = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def replacing(path: Path, *, private: bool = False, follow: bool = True, flush: bool = True) -> Iterator[IO[bytes]]:
    """A file to be written within it, which then takes the place of the one at a path.

    Until then, and after an exception, what was there is there; a kill leaves a file that ends in `.partial` besides. A
    new file gets the permissions of the user's umask, one that was there keeps its own, as if it had been written over.
    A device or a pipe is written to, not replaced, and so is a file in a folder that nothing can be added to.

    Args:
        path: The path.
        private: Only the user may read and write it.
        follow: Whether a link at the path is followed; it is replaced if not, and in a run in any case.
        flush: Whether the file, and the folder's entry of it, must survive a loss of power.

    Raises:
        OSError: It cannot be written, or what is written within raises one; with the path. A folder of a run that it is
            in is a link out of the run.
    """
    partial: Path | None = None
    try:
        # What lies in a run may be a stranger's.
        follow = not check_run_folder(path.parent) and follow
        there = _status(path, follow)
        goal = Path(os.path.realpath(path)) if follow and path.is_symlink() else path
        if there is not None and _in_place(there, goal.parent, follow):
            # Of a folder the system says that it is one.
            with path.open("wb") as file:
                yield file
                file.flush()
                if flush and stat.S_ISREG(there.st_mode):
                    _flush(file.fileno())
            return
        beside = partial_beside(goal)
        known = there is not None and stat.S_ISREG(there.st_mode)
        with open(beside, "x+b", opener=_private if private or known else None) as file:
            partial = beside
            if there is not None and known and not private:
                # Before there is anything to read. Some file systems have no permissions.
                with suppress(OSError):
                    partial.chmod(stat.S_IMODE(there.st_mode))
            yield file
            file.flush()
            if flush:
                _flush(file.fileno())
        partial.replace(goal)
        partial = None
        if flush:
            to_disk(goal.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink()


def write_bytes(path: Path, content: bytes, *, private: bool = False, follow: bool = True, flush: bool = True) -> None:
    """Writes a file at once; see `replacing`. Raises OSError, with the path."""
    with replacing(path, private=private, follow=follow, flush=flush) as file:
        file.write(content)


def write_text(path: Path, text: str, *, private: bool = False, follow: bool = True, flush: bool = True) -> None:
    """Writes a file of UTF-8 at once, whatever the system's own encoding is; see `replacing`. Raises OSError."""
    write_bytes(path, text.encode(), private=private, follow=follow, flush=flush)


def appending(path: Path) -> IO[str]:
    """A file of UTF-8 that is added to, and made if it is not there. Lines end as they are written.

    Raises:
        OSError: It cannot be opened; it is a link, which may lead anywhere, or a pipe, which may wait for a reader for
            ever.
    """
    check_run_folder(path.parent)
    if (there := _status(path, follow=False)) is not None:
        kind = there.st_mode
        if stat.S_ISLNK(kind) or stat.S_ISFIFO(kind):
            raise OSError(errno.EINVAL, "is a link or a pipe, and only files are added to", str(path))
    return path.open("a", encoding="utf-8", newline="")


def growing(path: Path) -> IO[str]:
    """A file of UTF-8 that grows in place of the one that was there, and keeps what it has after a kill.

    A link at the path is replaced. Lines end as they are written.

    Raises:
        OSError: It cannot be opened, or what is there is no file.
    """
    check_run_folder(path.parent)
    with suppress(FileNotFoundError):
        path.unlink()
    return path.open("x", encoding="utf-8", newline="")


def is_run(folder: Path) -> bool:
    """Whether there is a run in a folder, by what whoever loads one reads: its recipe, and what it was trained with."""
    try:
        return os.path.isfile(folder / "recipe.yaml") and (
            all(os.path.lexists(folder / name) for name in _OF_A_RUN)
            or next(folder.glob("checkpoints/*/checkpoint.json"), None) is not None
        )
    except OSError:
        # A folder that cannot be read.
        return False


def check_run_folder(folder: Path) -> bool:
    """Whether a folder, which need not be there yet, is one of a run, so that no link in it is followed.

    Raises:
        OSError: It is, and is a link out of the run, or lies behind one: a stranger's run may lead anywhere.
    """
    named = Path(os.path.abspath(folder))
    runs = [run for run in (named, *named.parents) if is_run(run)]
    for run in runs:
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(run)):
            raise OSError(errno.ELOOP, f"is a link out of the run {run}, which is not followed; remove it", str(folder))
    return bool(runs)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, if it is not there. Raises OSError, also where `check_run_folder` does."""
    check_run_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)


def partial_beside(goal: Path) -> Path:
    """Where a file or folder is made that will be renamed to a path: a name that no other process takes."""
    return goal.with_name(f".{goal.name[:_LETTERS]}.{os.urandom(4).hex()}.partial")


def is_partial(path: Path) -> bool:
    """Whether a path is that of a file that is being written, or was when its process was killed."""
    return _PARTIAL.fullmatch(path.name) is not None


def to_disk(path: Path) -> None:
    """Waits until a file, or which names a folder has, survives a loss of power. Raises OSError."""
    if path.is_dir():
        # Some systems and network disks cannot: the names then get there in their own time.
        with suppress(OSError):
            _flush_path(path, os.O_RDONLY)
    else:
        _flush_path(path, _TO_FLUSH)


def all_to_disk() -> None:
    """Waits until all that was written so far survives a loss of power: thousands of files at about the price of ten.

    It is the whole system's `sync`, so it waits for what others wrote, too.
    """
    # Windows has none.
    if hasattr(os, "sync"):
        os.sync()


def _status(path: Path, follow: bool) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise no_name(path, error) from None


def _in_place(there: os.stat_result, folder: Path, follow: bool) -> bool:
    """Whether what is there can only be written over: it is no file, or its folder is not to be written to."""
    if not stat.S_ISREG(there.st_mode):
        return not stat.S_ISLNK(there.st_mode)
    return follow and not os.access(folder, os.W_OK)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _flush_path(path: Path, how: int) -> None:
    try:
        number = os.open(path, how)
    except ValueError as error:
        raise no_name(path, error) from None
    try:
        _flush(number)
    finally:
        os.close(number)


def _flush(number: int) -> None:
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_FLUSHING:
            raise
