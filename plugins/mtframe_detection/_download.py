"""Fetches COCO 2017 from its official address."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mtframe.errors import DataError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """One zip file to fetch: where from, its MD5 digest, and a path that it unpacks to."""

    url: str
    md5: str
    gives: str


# The host's certificate does not name it, so https is refused; the digests guard what arrives.
COCO_2017 = (
    Archive(
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations/instances_val2017.json",
    ),
    Archive("http://images.cocodataset.org/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017"),
    Archive("http://images.cocodataset.org/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017"),
)


def download_coco(root: Path, archives: Iterable[Archive] = COCO_2017) -> None:
    """Fetches and unpacks what is not there yet; a zip file that arrived whole is not fetched again.

    Raises:
        DataError: A server does not answer, the disk is too small, or a file is not what it should be.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            if not (root / archive.gives).exists():
                path = _fetch(archive, root)
                _unpack(path, root)
                path.unlink()
    except OSError as error:
        raise DataError(
            f"{root}: {error.strerror or error}. Free space or choose another folder, and repeat."
        ) from None


def _fetch(archive: Archive, root: Path) -> Path:
    """The zip file's path, fetched unless it lies there already."""
    path = root / archive.url.rpartition("/")[2]
    if path.is_file() and _md5(path) == archive.md5:
        return path
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(archive.url, timeout=60) as response:
            # Zip file and content lie side by side for a while.
            _check_space(root, 2 * int(response.headers.get("Content-Length") or 0), archive.url)
            with part.open("wb") as file:
                shutil.copyfileobj(response, file, _CHUNK)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{archive.url}: no answer ({reason}). Check the connection and repeat.") from None
    found = _md5(part)
    if found != archive.md5:
        part.unlink()
        raise DataError(f"{archive.url}: arrived damaged (MD5 {found}, expected {archive.md5}). Repeat the download.")
    os.replace(part, path)
    return path


def _check_space(root: Path, needed: int, url: str) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DataError(
            f"{url}: needs about {needed / 1e9:.1f} GB in '{root}', which has {free / 1e9:.1f} GB free. "
            "Choose a folder on a larger disk."
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(path: Path, root: Path) -> None:
    """Unpacks beside the goal first, so that a folder with the right name is always complete."""
    staging = root / (path.stem + ".unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as file:
            for name in file.namelist():
                if not (staging / name).resolve().is_relative_to(staging.resolve()):
                    raise DataError(f"{path}: its entry {name!r} leads out of '{root}'; nothing was unpacked.")
            file.extractall(staging)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not a zip file, perhaps truncated ({error}). Delete it and repeat.") from None
    for source in sorted(staging.iterdir()):
        _merge(source, root / source.name)
    shutil.rmtree(staging)


def _merge(source: Path, goal: Path) -> None:
    """Moves a file or folder; into a folder that exists, its entries one by one."""
    if source.is_dir() and goal.is_dir():
        for entry in sorted(source.iterdir()):
            _merge(entry, goal / entry.name)
    else:
        os.replace(source, goal)
