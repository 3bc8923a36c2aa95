from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from mtframe.errors import DataError
from mtframe_face import LFW
from mtframe_face._download import LFW_FILES, RemoteFile, download_lfw


class _Quiet(SimpleHTTPRequestHandler):
    requested: list[str] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        self.requested.append(self.path)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a local server shows it."""
    folder = tmp_path / "site"
    folder.mkdir()
    _Quiet.requested.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _remote(site: tuple[Path, str], name: str, content: bytes) -> RemoteFile:
    (site[0] / name).write_bytes(content)
    return RemoteFile(name, f"{site[1]}/{name}", hashlib.sha256(content).hexdigest())


def _archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(stream, "jpeg")
    return stream.getvalue()


def _files(site: tuple[Path, str]) -> list[RemoteFile]:
    pictures = {f"lfw_funneled/{name}/{name}_{n:04d}.jpg": _jpeg() for name in ("Ann", "Bob") for n in (1, 2)}
    return [
        _remote(site, "lfw-funneled.tgz", _archive(pictures)),
        _remote(site, "peopleDevTrain.txt", b"2\nAnn\t2\nBob\t2\n"),
    ]


def test_what_is_fetched_can_be_read(site: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "deep" / "lfw"
    download_lfw(root, _files(site))
    assert len(LFW("train", root=root)) == 4
    assert not list(root.glob("*.tgz"))


def test_a_second_call_fetches_nothing_and_one_after_an_error_goes_on(site: tuple[Path, str], tmp_path: Path) -> None:
    pictures, people = _files(site)
    absent = RemoteFile(people.name, site[1] + "/gone", people.sha256)
    with pytest.raises(DataError, match=r"/gone cannot be fetched .*404.* put the file at .*peopleDevTrain.txt"):
        download_lfw(tmp_path, [pictures, absent])
    _Quiet.requested.clear()
    download_lfw(tmp_path, [pictures, people])
    assert _Quiet.requested == ["/peopleDevTrain.txt"]
    download_lfw(tmp_path, [pictures, people])
    assert _Quiet.requested == ["/peopleDevTrain.txt"]


def test_another_file_than_the_published_one_is_refused(site: tuple[Path, str], tmp_path: Path) -> None:
    file = _remote(site, "pairs.txt", b"1\n")
    (site[0] / "pairs.txt").write_bytes(b"2\n")
    with pytest.raises(DataError, match=f"is not the published pairs.txt: SHA-256 .*, expected {file.sha256}"):
        download_lfw(tmp_path / "root", [file])
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("name", ["../escaped.jpg", "/tmp/mtframe-escaped.jpg"])
def test_an_archive_cannot_write_outside_the_root(site: tuple[Path, str], tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    file = _remote(site, "lfw.tgz", _archive({name: b"x"}))
    if name.startswith("/"):
        download_lfw(root, [file])  # the filter makes it relative
        assert (root / name[1:]).exists()
    else:
        with pytest.raises(DataError, match=r"lfw\.tgz cannot be unpacked .*outside"):
            download_lfw(root, [file])
    assert not (tmp_path / "escaped.jpg").exists()
    assert not Path("/tmp/mtframe-escaped.jpg").exists()


def test_an_archive_cannot_link_outside_the_root(site: tuple[Path, str], tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        link = tarfile.TarInfo("lfw/out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    with pytest.raises(DataError, match="cannot be unpacked"):
        download_lfw(tmp_path / "root", [_remote(site, "lfw.tgz", stream.getvalue())])


def test_the_hashes_are_those_of_the_published_files(shared_data: Path) -> None:
    known = {file.name: file.sha256 for file in LFW_FILES}
    for name in ("pairsDevTest.txt", "peopleDevTrain.txt"):
        assert hashlib.sha256((shared_data / "lfw" / name).read_bytes()).hexdigest() == known[name]
