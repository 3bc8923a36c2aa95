from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from mtframe.download import RemoteFile, download
from mtframe.errors import DataError
from mtframe_detection._download import COCO_2017
from mtframe_face._download import LFW_FILES
from mtframe_face.lfw import LFW


class Site:
    """A server on this machine: what it holds, what it was asked for, and how far it answers."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.breaks_off_after: int | None = None
        self.knows_ranges = True
        self.url = ""

    def publish(self, name: str, content: bytes, *, md5: bool = False, gives: str | None = None) -> RemoteFile:
        self.files[name] = content
        digest = hashlib.md5(content) if md5 else hashlib.sha256(content)
        return RemoteFile(name, f"{self.url}/{name}", digest.hexdigest(), gives)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, site: Site, *arguments: object) -> None:
        self.site = site
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # the name is the base class's
        wanted = self.headers.get("Range")
        self.site.asked.append((self.path[1:], wanted))
        content = self.site.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.site.knows_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.site.breaks_off_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


def as_zip(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def as_tgz(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


PACKED: dict[str, Callable[[dict[str, bytes]], bytes]] = {"zip": as_zip, "tgz": as_tgz}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("suffix", PACKED)
def test_fetches_unpacks_and_tidies(site: Site, tmp_path: Path, suffix: str) -> None:
    pack = PACKED[suffix]
    files = [
        site.publish(f"labels.{suffix}", pack({"labels/val.json": b"{}"}), md5=True, gives="labels/val.json"),
        site.publish(f"val.{suffix}", pack({"val/1.jpg": b"one", "val/2.jpg": b"two"}), gives="val"),
        site.publish("pairs.txt", b"1\n"),
    ]
    root = tmp_path / "a" / "b"
    (root / "labels").mkdir(parents=True)
    (root / "labels/mine.json").write_bytes(b"mine")
    download(root, files)
    expected = {"labels/mine.json": b"mine", "labels/val.json": b"{}", "pairs.txt": b"1\n",
                "val/1.jpg": b"one", "val/2.jpg": b"two"}  # fmt: skip
    assert contents(root) == expected
    # Nothing is fetched twice: the server could be gone.
    site.asked.clear()
    download(root, files)
    assert site.asked == []


def test_what_an_archive_holds_is_on_the_disk_before_it_is_there_and_the_archive_gone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[set[str]] = []
    monkeypatch.setattr(os, "sync", lambda: there.append(set(contents(tmp_path))))
    download(tmp_path, [site.publish("val.zip", PACKED["zip"]({"val/1.jpg": b"one"}), gives="val")])
    assert there == [{"val.zip", ".val.zip.unpacking/val/1.jpg"}]
    assert set(contents(tmp_path)) == {"val/1.jpg"}


def test_an_archive_that_arrived_whole_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    file = site.publish("val.zip", as_zip({"val/1.jpg": b"one"}), gives="val")
    (tmp_path / "val.zip").write_bytes(site.files.pop("val.zip"))
    download(tmp_path, [file])
    assert contents(tmp_path) == {"val/1.jpg": b"one"}


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_transfer_that_broke_off_goes_on(site: Site, tmp_path: Path, knows_ranges: bool) -> None:
    content = bytes(range(256)) * 20
    file = site.publish("large.bin", content)
    site.knows_ranges, site.breaks_off_after = knows_ranges, 1000
    with pytest.raises(DataError, match=r"large.bin: broke off after 1000 of 5120 bytes. Repeat to go on"):
        download(tmp_path, [file])
    site.breaks_off_after = None
    download(tmp_path, [file])
    assert contents(tmp_path) == {"large.bin": content}
    assert site.asked == [("large.bin", None), ("large.bin", "bytes=1000-")]


def test_a_part_of_another_file_does_not_stay_in_the_way(site: Site, tmp_path: Path) -> None:
    file = site.publish("pairs.txt", b"1\n")
    (tmp_path / "pairs.txt.part").write_bytes(b"longer than the file")
    download(tmp_path, [file])
    assert contents(tmp_path) == {"pairs.txt": b"1\n"}
    # One that is shorter is found out by the digest, and the call after that begins anew.
    (tmp_path / "pairs.txt").rename(tmp_path / "pairs.txt.part")
    (tmp_path / "pairs.txt.part").write_bytes(b"2")
    with pytest.raises(DataError, match=r"not the published pairs\.txt"):
        download(tmp_path, [file])
    download(tmp_path, [file])
    assert contents(tmp_path) == {"pairs.txt": b"1\n"}


@pytest.mark.parametrize("md5", [True, False])
def test_another_file_than_the_published_one_is_refused_and_removed(site: Site, tmp_path: Path, md5: bool) -> None:
    file = site.publish("pairs.txt", b"1\n", md5=md5)
    site.files["pairs.txt"] = b"2\n"
    kind = "MD5" if md5 else "SHA256"
    with pytest.raises(DataError, match=rf"not the published pairs.txt \({kind} .*, expected {file.digest}\)"):
        download(tmp_path, [file])
    assert contents(tmp_path) == {}


def test_no_answer(site: Site, tmp_path: Path) -> None:
    file = RemoteFile("gone.zip", f"{site.url}/gone.zip", "0" * 64, gives="gone")
    with pytest.raises(DataError, match=r"gone.zip: no answer \(Not Found\)\. Repeat, .* put the file at .*gone.zip"):
        download(tmp_path, [file])


def test_a_full_disk_is_told_before_fetching(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site.publish("val.zip", as_zip({"val/1.jpg": b"one"}), gives="val")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"needs about 0.0 GB in .*, which has 0.0 GB free"):
        download(tmp_path, [file])
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(("suffix", "said"), [
    ("zip", r"entry '\.\./\.\./evil\.txt' leads out of .*nothing was unpacked"),
    ("tgz", r"a\.tgz: cannot be unpacked .*outside"),
])  # fmt: skip
def test_an_entry_that_leads_out_of_the_folder_stops_everything(
    site: Site, tmp_path: Path, suffix: str, said: str
) -> None:
    file = site.publish(f"a.{suffix}", PACKED[suffix]({"a/1.jpg": b"one", "../../evil.txt": b"x"}), gives="a")
    with pytest.raises(DataError, match=said):
        download(tmp_path / "root", [file])
    assert not (tmp_path / "evil.txt").exists()
    assert list(contents(tmp_path / "root")) == [f"a.{suffix}"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("goal", ["/etc", "lfw/a", "a"])
def test_links_and_devices_in_a_tar_are_refused_as_in_a_zip(site: Site, tmp_path: Path, kind: bytes, goal: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("lfw/a"))
        link = tarfile.TarInfo("lfw/out")
        link.type, link.linkname = kind, goal
        archive.addfile(link)
    with pytest.raises(DataError, match=r"lfw\.tgz: its entry 'lfw/out' is a link or a device; nothing was unpacked"):
        download(tmp_path, [site.publish("lfw.tgz", stream.getvalue(), gives="lfw")])
    assert list(contents(tmp_path)) == ["lfw.tgz"]


def test_a_link_in_a_zip_is_refused(site: Site, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("lfw/out")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "a")
    with pytest.raises(DataError, match=r"lfw\.zip: its entry 'lfw/out' is a link or a device; nothing was unpacked"):
        download(tmp_path, [site.publish("lfw.zip", stream.getvalue(), gives="lfw")])


def tgz_of(*blocks: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Headers as they are, each with what it says is behind it; `tarfile` would write names and links its own way."""
    stream = io.BytesIO()
    with gzip.open(stream, "wb") as packed:
        for head, held in blocks:
            head.size = head.size or len(held)
            packed.write(head.tobuf(tarfile.GNU_FORMAT) + held + bytes(-len(held) % 512))
        packed.write(bytes(1024))
    return stream.getvalue()


def head(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("first", [True, False])
def test_a_header_of_megabytes_is_refused_before_it_is_read(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, first: bool
) -> None:
    most, read = [0], gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: most.append(n) or read(self, n))
    before = [] if first else [(head("a/1.jpg"), b"one")]
    file = site.publish("a.tgz", tgz_of(*before, (head("long", kind), bytes(8_000_000))), gives="a")
    with pytest.raises(DataError, match=r"unpacked \(a header has 8,000,000 bytes, more than the limit of 65,536\)"):
        download(tmp_path, [file])
    assert max(most) < 100_000


def test_a_long_name_is_unpacked(site: Site, tmp_path: Path) -> None:
    name = "/".join(["a", "b" * 200, "c" * 200])
    download(tmp_path, [site.publish("a.tgz", as_tgz({name: b"one"}), gives="a")])
    assert contents(tmp_path) == {name: b"one"}


def test_sparse_files_are_refused(site: Site, tmp_path: Path) -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9", "GNU.sparse.name": "a"}
    newer = tarfile.TarInfo("a/1.jpg")
    newer.pax_headers = pax
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(newer)
    for content in (stream.getvalue(), tgz_of((head("a/1.jpg", tarfile.GNUTYPE_SPARSE), b""))):
        with pytest.raises(DataError, match=r"cannot be unpacked \(has a sparse file, which is not supported\)"):
            download(tmp_path, [site.publish("a.tgz", content, gives="a")])
        (tmp_path / "a.tgz").unlink()


def test_headers_for_all_members_are_few(site: Site, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", pax_headers={f"k{n}": "v" for n in range(101)}) as archive:
        archive.addfile(tarfile.TarInfo("a/1.jpg"))
    with pytest.raises(DataError, match=r"cannot be unpacked \(101 headers are for all members, more than 100\)"):
        download(tmp_path, [site.publish("a.tgz", stream.getvalue(), gives="a")])


@pytest.mark.parametrize("size", [0, 100_000_000])
def test_a_tar_is_read_no_further_than_it_may_unpack(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Empty files count by their headers: each is an entry on the disk."""
    seen: list[int] = []
    monkeypatch.setattr("mtframe.download._check_plain", lambda *_: seen.append(1))
    monkeypatch.setattr("mtframe.download._MOST_RATIO", 20)
    packed = tgz_of(*((head(f"a/{n}.jpg", size=size), b"") for n in range(5000)))
    with pytest.raises(DataError, match=r"too many for its size \(a bomb\?\); nothing was unpacked"):
        download(tmp_path, [site.publish("a.tgz", packed, gives="a")])
    assert len(seen) < 5000
    assert list(contents(tmp_path)) == ["a.tgz"]


@pytest.mark.parametrize(("name", "content", "said"), [
    ("a.zip", as_zip({"other/1.jpg": b""}), "there is no 'a' in it"),
    ("a.tgz", as_tgz({"a/1.jpg": b"x" * 9000})[:60], "cannot be unpacked"),
    ("a.tgz", b"no archive", "cannot be unpacked"),
], ids=["other content", "cut off", "no archive"])  # fmt: skip
def test_an_archive_that_is_not_what_it_should_be(
    site: Site, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        download(tmp_path, [site.publish(name, content, gives="a")])
    assert not (tmp_path / "a").exists()


def test_lfw_as_it_arrives_can_be_read(site: Site, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(stream, "jpeg")
    pictures = {f"lfw_funneled/{name}/{name}_{n:04d}.jpg": stream.getvalue() for name in ("Ann", "Bob") for n in (1, 2)}
    archive = site.publish("lfw-funneled.tgz", as_tgz(pictures), gives="lfw_funneled")
    download(tmp_path, [archive, site.publish("peopleDevTrain.txt", b"2\nAnn\t2\nBob\t2\n")])
    assert len(LFW("train", root=tmp_path)) == 4


def test_the_digests_are_those_of_the_published_files(shared_data: Path) -> None:
    known = {file.name: file.digest for file in LFW_FILES}
    for name in ("pairsDevTest.txt", "peopleDevTrain.txt"):
        assert hashlib.sha256((shared_data / "lfw" / name).read_bytes()).hexdigest() == known[name]


def test_what_is_fetched_is_named_and_has_a_digest() -> None:
    for file in (*LFW_FILES, *COCO_2017):
        assert len(file.digest) in (32, 64)
        assert (file.gives is not None) == file.name.endswith((".zip", ".tgz"))
