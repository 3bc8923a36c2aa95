from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mtframe.errors import DataError
from mtframe_detection._download import COCO_2017, Archive, download_coco


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def publish(folder: Path, url: str, name: str, entries: dict[str, str], gives: str) -> Archive:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for entry, text in entries.items():
            file.writestr(entry, text)
    (folder / name).write_bytes(buffer.getvalue())
    return Archive(f"{url}/{name}", hashlib.md5(buffer.getvalue()).hexdigest(), gives)


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def test_fetches_unpacks_and_tidies(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    archives = [
        publish(folder, url, "ann.zip", {"annotations/val.json": "{}"}, "annotations/val.json"),
        publish(folder, url, "val2017.zip", {"val2017/1.jpg": "one", "val2017/2.jpg": "two"}, "val2017"),
    ]  # fmt: skip
    root = tmp_path / "a" / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/mine.json").write_text("mine")
    download_coco(root, archives)
    assert contents(root) == {
        "annotations/mine.json": "mine",
        "annotations/val.json": "{}",
        "val2017/1.jpg": "one",
        "val2017/2.jpg": "two",
    }
    # Nothing is fetched twice: the server could be gone.
    for path in folder.iterdir():
        path.unlink()
    download_coco(root, archives)


def test_a_zip_that_arrived_whole_is_not_fetched_again(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    archive = publish(folder, url, "val2017.zip", {"val2017/1.jpg": "one"}, "val2017")
    (folder / "val2017.zip").rename(tmp_path / "val2017.zip")
    download_coco(tmp_path, [archive])
    assert (tmp_path / "val2017/1.jpg").read_text() == "one"


def test_a_damaged_file_is_refused_and_removed(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    archive = publish(folder, url, "val2017.zip", {"val2017/1.jpg": "one"}, "val2017")
    (folder / "val2017.zip").write_bytes(b"half")
    with pytest.raises(DataError, match=r"val2017.zip: arrived damaged \(MD5 .*, expected"):
        download_coco(tmp_path / "coco", [archive])
    assert contents(tmp_path / "coco") == {}


def test_an_entry_that_leads_out_of_the_folder_stops_everything(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    archive = publish(folder, url, "val2017.zip", {"val2017/1.jpg": "one", "../../evil.txt": "x"}, "val2017")
    with pytest.raises(DataError, match=r"entry '\.\./\.\./evil\.txt' leads out of .*nothing was unpacked"):
        download_coco(tmp_path / "coco", [archive])
    assert not (tmp_path / "evil.txt").exists()
    assert not (tmp_path / "coco/val2017").exists()


def test_no_answer(tmp_path: Path, site: tuple[Path, str]) -> None:
    archive = Archive(f"{site[1]}/absent.zip", "0" * 32, "val2017")
    with pytest.raises(DataError, match=r"absent.zip: no answer \(.*\)\. Check the connection"):
        download_coco(tmp_path / "coco", [archive])


def test_a_full_disk_is_told_before_fetching(
    site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = site
    archive = publish(folder, url, "val2017.zip", {"val2017/1.jpg": "one"}, "val2017")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"needs about 0.0 GB in .*, which has 0.0 GB free"):
        download_coco(tmp_path / "coco", [archive])


def test_the_official_archives() -> None:
    assert [archive.url.rpartition("/")[2] for archive in COCO_2017] == [
        "annotations_trainval2017.zip",
        "val2017.zip",
        "train2017.zip",
    ]
    assert all(len(archive.md5) == 32 for archive in COCO_2017)
