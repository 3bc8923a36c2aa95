"""Who writes into a run's folder: one process at a time, of all machines that share its disk."""

from __future__ import annotations

import errno
import getpass
import logging
import os
import platform
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mtframe.errors import RecipeError, TrainingError
from mtframe.paths import regular

from ._files import write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOG = logging.getLogger("mtframe")

LOCK, _HOLDER = ".lock", ".writer.json"

# What a folder may hold that nobody has written a run into.
RESERVED = frozenset({LOCK, _HOLDER})

# Windows follows no links unasked.
_NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0)

# A file system that knows no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)

# Descriptors of the locks that this process holds.
_OPEN: set[int] = set()


class Holder(BaseModel):
    """Who writes: for people, and to say how to end it.

    Attributes:
        pid: Of the process.
        host: Its machine.
        user: Whose it is.
        since: When it began.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    host: str
    user: str
    since: str


class Writer:
    """The right to write into a folder.

    A lock of `flock` on a file in it, which the system frees when its process ends, however it ends, and which NFS
    passes on to other machines. The file stays: that it is there says nothing.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number: int | None = None

    def acquire(self) -> None:
        """Takes it. Raises RecipeError, with who has it, if another one does, or if nobody can write there."""
        try:
            number = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | _NOT_A_LINK, 0o666)
        except OSError as error:
            why = f"{LOCK} is a link; remove it" if error.errno == errno.ELOOP else error.strerror or error
            raise RecipeError(f"{self._folder}: cannot be written ({why})") from None
        try:
            self._lock(number)
        except BaseException:
            os.close(number)
            raise
        self._number = number
        _OPEN.add(number)
        me = Holder(pid=os.getpid(), host=platform.node(), user=_user(), since=f"{datetime.now():%Y-%m-%d %H:%M:%S}")
        try:
            write_text(self._folder / _HOLDER, me.model_dump_json() + "\n")
        except TrainingError as error:
            self.release()
            if not isinstance(error.__cause__, PermissionError):
                raise
            # The lock could be opened, since another user of the folder had made it.
            raise RecipeError(f"{self._folder}: cannot be written ({error.__cause__.strerror})") from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Gives it back."""
        if self._number is None or self._number not in _OPEN:
            return
        with suppress(OSError):
            (self._folder / _HOLDER).unlink()
        _OPEN.discard(self._number)
        os.close(self._number)
        self._number = None

    def _lock(self, number: int) -> None:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no file locks on this system")
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise RecipeError(self._held()) from None
            if error.errno not in _NO_LOCKS:
                raise RecipeError(f"{self._folder}: cannot be locked ({error.strerror or error})") from None
            LOG.warning("%s: cannot be locked (%s); make sure that no other process writes there",
                        self._folder, error.strerror)  # fmt: skip

    def _held(self) -> str:
        """What to tell a second one."""
        try:
            holder = Holder.model_validate_json(regular(self._folder / _HOLDER).read_bytes())
        except (OSError, ValidationError):
            return f"{self._folder}: another process is writing there. Wait until it is done, or stop it"
        if (holder.pid, holder.host) == (os.getpid(), platform.node()):
            return f"{self._folder}: this process is writing there already"
        here = holder.host == platform.node()
        stop = f"kill {holder.pid}" if here else f"on {holder.host!r}: kill {holder.pid}"
        return (
            f"{self._folder}: process {holder.pid} of {holder.user!r} on {holder.host!r} has been writing there since "
            f"{holder.since!r}. Wait until it is done, or stop it, {stop}; what it has saved by then is kept"
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A number without a name, as containers have it.
        return str(os.getuid()) if hasattr(os, "getuid") else "?"


def _forget() -> None:
    """In a forked worker: a lock lives as long as anybody has its descriptor open, and workers may outlive a kill."""
    for number in _OPEN:
        os.close(number)
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
