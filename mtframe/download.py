"""What data sets need to fetch themselves: files with known digests, and archives unpacked safely.

Imports no torch. Every step can be repeated: what is there is kept, and a transfer that broke off goes on where
it ended, if the server allows that.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import lzma
import os
import platform
import shutil
import ssl
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mtframe.errors import DataError
from mtframe.files import all_to_disk, to_disk

_CHUNK = 1 << 20
_DIGESTS = {32: "md5", 64: "sha256"}

# Bytes of an archive's contents, for each of its own: images and text do not pack better.
_MOST_RATIO = 200

# Of a tar: headers that stand for names, bytes of one, and how many may be for all members.
_NAMING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_MOST_NAMING, _MOST_SHARED = 1 << 16, 100

# Of an archive's names: too long, or what is a file in one is a folder in another.
_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        name: Its name on disk; archives end in `.zip`, `.tgz` or `.tar.gz`.
        url: Where it is.
        digest: Of its content, in hexadecimal: MD5 (32 digits) or SHA-256 (64).
        gives: Of an archive, a path that is there once it is unpacked; None for a file that is kept as it is.
    """

    name: str
    url: str
    digest: str
    gives: str | None = None


def download(root: Path, files: Iterable[RemoteFile]) -> None:
    """Fetches files into a folder and unpacks archives there, with a progress bar on a terminal.

    Args:
        root: The folder; made if need be.
        files: What to fetch. Files with the right content and archives that were unpacked are left alone.

    Raises:
        DataError: A server does not answer, the disk is too small, a file is not what its digest promises, or an
            archive is damaged or unsafe. What arrived before stays, so that the same call goes on from there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        for file in files:
            path = root / file.name
            if file.gives is not None and (root / file.gives).exists():
                continue
            if not path.is_file() or _digest(path, file) != file.digest:
                _fetch(file, path)
            if file.gives is not None:
                _unpack(path, root, file.gives)
                path.unlink()
    except OSError as error:
        raise DataError(
            f"{root}: {error.strerror or error}. Free space or choose another folder, and repeat."
        ) from None


def _fetch(file: RemoteFile, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with _opened(file.url, part) as (response, done):
            total = done + int(response.headers.get("Content-Length") or 0)
            # An archive and its content lie side by side for a while.
            _check_space(path.parent, (2 if file.gives else 1) * total - done, file.url)
            with part.open("ab" if done else "wb") as out, _progress(file.name, total, done) as advance:
                while block := response.read(_CHUNK):
                    out.write(block)
                    advance(len(block))
    # A connection that breaks in the middle of an answer raises what it is made of.
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{file.url}: no answer ({reason}). Repeat, which goes on from here, or put the file at {path}"
        ) from None
    if part.stat().st_size < total:
        arrived = f"{part.stat().st_size} of {total} bytes"
        raise DataError(f"{file.url}: broke off after {arrived}. Repeat to go on from there.")
    found = _digest(part, file)
    if found != file.digest:
        part.unlink()
        kind = _DIGESTS[len(file.digest)].upper()
        raise DataError(f"{file.url}: not the published {file.name} ({kind} {found}, expected {file.digest}). Repeat.")
    to_disk(part)
    os.replace(part, path)
    to_disk(path.parent)


@contextmanager
def _opened(url: str, part: Path) -> Iterator[tuple[Any, int]]:
    """The server's answer, and how many bytes of the file `part` holds already and the answer leaves out."""
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        # 416: there is nothing behind what we have, which then is the whole file, or another.
        if error.code != 416:
            raise
        part.unlink()
        done, response = 0, urllib.request.urlopen(url, timeout=60)
    with response:
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        yield response, done if goes_on else 0


def _check_space(root: Path, needed: int, url: str) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DataError(
            f"{url}: needs about {needed / 1e9:.1f} GB in '{root}', which has {free / 1e9:.1f} GB free. "
            "Choose a folder on a larger disk."
        )


@contextmanager
def _progress(name: str, total: int, done: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total or None, completed=done)
        yield lambda count: progress.advance(task, count)


def _digest(path: Path, file: RemoteFile) -> str:
    kind = _DIGESTS[len(file.digest)]
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _unpack(path: Path, root: Path, gives: str) -> None:
    """Unpacks into a folder of its own first, so that one with the right name is always complete."""
    staging = root / f".{path.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        if zipfile.is_zipfile(path):
            _unzip(path, staging)
        else:
            if not hasattr(tarfile, "data_filter"):
                raise DataError(
                    f"{path}: Python {platform.python_version()} cannot unpack it safely, 3.11.4 and later can. "
                    f"Unpack it in {root} yourself."
                )
            _untar(path, staging)
        if not (staging / gives).exists():
            raise DataError(f"{path}: there is no {gives!r} in it; nothing was unpacked.")
        # The archive is removed next.
        all_to_disk()
        for source in sorted(staging.iterdir()):
            _merge(source, root / source.name)
    # What the modules of archives raise on garbage, passwords, times that no clock has and unknown ways to pack.
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, ValueError,
            LookupError, RuntimeError, OverflowError) as error:  # fmt: skip
        raise DataError(f"{path}: cannot be unpacked ({error}). Delete it and repeat.") from None
    except OSError as error:
        if error.errno not in _IMPOSSIBLE:
            raise
        raise DataError(
            f"{path}: has names that cannot be on this disk ({error.strerror}); nothing was unpacked."
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _Unsafe(tarfile.TarError):
    """Not a ReadError, which `tarfile` takes for an archive of another kind."""


class _Member(tarfile.TarInfo):
    """What is before each file of an archive, refused where `tarfile` would read without an end to understand it."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str | None, errors: str) -> Self:
        """Called for each header. A long name is read as a whole: 1.5 GB of it pack into 1.5 MB."""
        member = super().frombuf(buf, encoding or "utf-8", errors)
        if member.type in _NAMING and member.size > _MOST_NAMING:
            raise _Unsafe(f"a header has {member.size:,} bytes, more than the limit of {_MOST_NAMING:,}")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise _Unsafe("has a sparse file, which is not supported")
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:
        """Where `tarfile` reads which parts of a sparse file there are, as many as the file says."""
        raise _Unsafe("has a sparse file, which is not supported")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members one by one; the archive would keep them all."""
    while (member := archive.next()) is not None:
        if len(archive.pax_headers) > _MOST_SHARED:
            # Each member gets a copy.
            raise _Unsafe(f"{len(archive.pax_headers):,} headers are for all members, more than {_MOST_SHARED}")
        yield member
        archive.members.clear()  # type: ignore[attr-defined]


def _untar(path: Path, folder: Path) -> None:
    with tarfile.open(path, tarinfo=_Member) as archive:
        size, limit = 0, _MOST_RATIO * path.stat().st_size
        for member in _members(archive):
            _check_plain(path, member.name, member.isreg() or member.isdir())
            # With the header: archives of nothing but empty files are bombs, too.
            size += tarfile.BLOCKSIZE + member.size
            if size > limit:
                # To go on would mean to unpack what is passed over.
                break
        _check_room(path, folder, size)
    with tarfile.open(path, tarinfo=_Member) as archive:
        # The filter refuses members that lead out of the folder.
        archive.extractall(folder, _members(archive), filter="data")


def _check_plain(path: Path, name: str, plain: bool) -> None:
    """Raises DataError for an entry that is neither a file nor a folder."""
    if not plain:
        raise DataError(f"{path}: its entry {name!r} is a link or a device; nothing was unpacked.")


def _unzip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not (folder / entry.filename).resolve().is_relative_to(folder.resolve()):
                raise DataError(
                    f"{path}: its entry {entry.filename!r} leads out of '{folder.parent}'; nothing was unpacked."
                )
            # The upper half of the attributes is the mode, where the archive was made on a system that has one.
            kind = stat.S_IFMT(entry.external_attr >> 16)
            _check_plain(path, entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        _check_room(path, folder, sum(entry.file_size for entry in archive.infolist()))
        archive.extractall(folder)


def _check_room(path: Path, folder: Path, size: int) -> None:
    """Raises DataError if an archive holds far more than it should, or than the disk has room for."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{path}: unpacks to {size:,} bytes, and '{folder.parent}' has {free:,} free; nothing was unpacked."
        )
    if size > _MOST_RATIO * path.stat().st_size:
        raise DataError(f"{path}: unpacks to {size:,} bytes, too many for its size (a bomb?); nothing was unpacked.")


def _merge(source: Path, goal: Path) -> None:
    """Moves a file or folder; into a folder that exists, its entries one by one."""
    if source.is_dir() and goal.is_dir():
        for entry in sorted(source.iterdir()):
            _merge(entry, goal / entry.name)
    else:
        os.replace(source, goal)
