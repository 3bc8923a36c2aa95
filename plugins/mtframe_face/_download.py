"""Fetching LFW: checked against known hashes, unpacked safely, and able to go on where it stopped."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtframe.errors import DataError


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch: its name on disk, its address and its SHA-256."""

    name: str
    url: str
    sha256: str


# The images and pairs are the copies that scikit-learn fetches; the lists of people are on LFW's own site.
LFW_FILES = (
    RemoteFile(
        "pairsDevTest.txt",
        "https://ndownloader.figshare.com/files/5976009",
        "7cb06600ea8b2814ac26e946201cdb304296262aad67d046a16a7ec85d0ff87c",
    ),
    RemoteFile(
        "pairs.txt",
        "https://ndownloader.figshare.com/files/5976006",
        "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
    ),
    RemoteFile(
        "lfw-funneled.tgz",
        "https://ndownloader.figshare.com/files/5976015",
        "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
    ),
    RemoteFile(
        "peopleDevTrain.txt",
        "http://vis-www.cs.umass.edu/lfw/peopleDevTrain.txt",
        "2e58df13ba4cc143189336e001cc2c195f1dfa5b29a6475c02857be353c2a2fa",
    ),
)


def download_lfw(root: Path, files: Sequence[RemoteFile] = LFW_FILES) -> None:
    """Fetches `files` into `root` and unpacks the archives there; what is there already is kept.

    Raises:
        DataError: A file cannot be fetched, is not what its hash promises, or an archive is unsafe. What was
            fetched before stays, so that the same call goes on from there.
    """
    root.mkdir(parents=True, exist_ok=True)
    for file in files:
        done = root / f".{file.name}.unpacked"
        if done.exists():
            continue
        path = root / file.name
        if not path.exists() or _sha256(path) != file.sha256:
            _fetch(file, path)
        if path.suffix == ".tgz":
            _unpack(path, root)
            done.touch()
            path.unlink()


def _fetch(file: RemoteFile, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with urllib.request.urlopen(file.url, timeout=60) as response, part.open("wb") as out:
            shutil.copyfileobj(response, out, 1 << 20)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{file.url} cannot be fetched ({error}). Try again, or put the file at {path}") from None
    found = _sha256(part)
    if found != file.sha256:
        part.unlink()
        raise DataError(f"{file.url} is not the published {file.name}: SHA-256 {found}, expected {file.sha256}")
    os.replace(part, path)


def _unpack(path: Path, root: Path) -> None:
    try:
        with tarfile.open(path) as archive:
            # The filter refuses members that are links, devices or paths out of `root`.
            archive.extractall(root, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked ({error})") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
