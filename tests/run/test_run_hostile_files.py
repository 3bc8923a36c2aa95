"""Files that never end, claim too much or pack too well are refused in a moment, by a message."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mtframe.assembly import Assembly
from mtframe.data import _images, decode_image, read_image
from mtframe.data._images import read_map
from mtframe.download import _unpack
from mtframe.errors import BadImageError, DataError, MtframeError, RecipeError
from mtframe.paths import regular
from mtframe.recipe import Recipe, load_recipe
from mtframe.training import Trainer
from mtframe_classification.csv_images import CsvImages
from mtframe_detection.coco import Coco
from mtframe_detection.yolo import Yolo
from toy import toy_recipe


def fifo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


READERS: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "image": ("a.jpg", lambda root, file: read_image(file)),
    "mask": ("a.png", lambda root, file: read_map(file)),
    "recipe": ("recipe.yaml", lambda root, file: load_recipe(file)),
    "csv": ("table.csv", lambda root, file: CsvImages("train", root=root, file="table.csv")),
    "coco": ("annotations/instances_train2017.json", lambda root, file: Coco("train", root=root)),
    "yolo": ("data.yaml", lambda root, file: Yolo("train", root=root, data="data.yaml")),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_where_a_file_is_expected_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    name, read = READERS[kind]
    file = fifo(tmp_path / name)
    with pytest.raises(MtframeError) as caught:
        read(tmp_path, file)
    assert str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin"])
def test_a_device_is_no_file(device: str) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe: is no regular file: a pipe, a device or the like"):
        load_recipe(device)


def test_a_file_is_regular_if_it_is_there_and_no_longer_than_it_may_be(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1234")
    assert regular(file, 4) == file
    with pytest.raises(OSError, match="has 4 bytes, more than the limit of 3"):
        regular(file, 3)
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "b")
    with pytest.raises(IsADirectoryError):
        regular(tmp_path)


def test_an_image_file_of_endless_size_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(BadImageError, match="more than the limit of 1,073,741,824"):
        read_image(file)


def test_a_large_photograph_is_allowed_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.png"
    Image.new("L", (40, 30)).save(file)
    monkeypatch.setattr(_images, "MAX_PIXELS", 1000)
    with pytest.raises(BadImageError, match=r"40x30 pixels, .* is allowed with MTFRAME_MAX_PIXELS=1200 in the environ"):
        read_image(file)
    monkeypatch.setattr(_images, "MAX_PIXELS", 1200)
    read_image(file)


@pytest.mark.parametrize("given", ["many", "0", "-5", "1e9"])
def test_a_limit_that_is_no_number_is_the_users_mistake_not_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    file = tmp_path / "a.png"
    Image.new("L", (40, 30)).save(file)
    monkeypatch.setenv("MTFRAME_MAX_PIXELS", given)
    for read in (read_image, read_map):
        with pytest.raises(RecipeError, match=f"MTFRAME_MAX_PIXELS: expected a number of pixels, .* got '{given}'"):
            read(file)
    monkeypatch.setenv("MTFRAME_MAX_PIXELS", "1199")
    with pytest.raises(BadImageError, match="more than the limit of 1,199"):
        read_image(file)
    monkeypatch.setenv("MTFRAME_MAX_PIXELS", "1200")
    read_image(file)


def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(data, "JPEG", progressive=True)
    file = tmp_path / "a.jpg"
    file.write_bytes(data.getvalue())
    read_image(file)
    whole = data.getvalue()
    file.write_bytes(whole[:-2] + b"\xff\xda" * 5000 + whole[-2:])
    with pytest.raises(BadImageError, match=r"has 5,0\d\d scans, more than the limit of 100"):
        read_image(file)


@pytest.mark.timeout(60)
def test_scans_of_a_large_image_are_counted_by_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(buffer, "JPEG", progressive=True)
    scans = buffer.getvalue().count(b"\xff\xda")
    monkeypatch.setenv("MTFRAME_MAX_PIXELS", "1000000")
    assert decode_image(buffer.getvalue(), "a.jpg")[1] == (1000, 1000)
    data = buffer.getvalue()[:-2] + b"\xff\xda" * (21 - scans) + b"\xff\xd9"
    with pytest.raises(BadImageError, match="has 21 scans, more than the limit of 20 for its 1,000,000 pixels"):
        decode_image(data, "a.jpg")


def tiff(tags: dict[int, tuple[int, int, int]]) -> bytes:
    """A TIFF file of one directory (TIFF 6.0, section 2): type, count and value by tag."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def test_a_tile_is_counted_as_the_image_is() -> None:
    size, tile = {256: (4, 1, 8), 257: (4, 1, 8)}, {322: (4, 1, 16384), 323: (4, 1, 16384)}
    form = {258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1), 324: (4, 1, 200), 325: (4, 1, 100)}
    with pytest.raises(BadImageError, match="16384x16384 pixels, more than the limit"):
        decode_image(tiff(size | tile | form), "a.tif")


@pytest.mark.timeout(20)
def test_a_ppm_in_text_is_refused_its_reader_takes_minutes() -> None:
    with pytest.raises(BadImageError, match=r"is a PPM in text; expected a binary one \(P4, P5 or P6\)"):
        decode_image(b"P3 10 10 255\n" + b"#a\n" * 3_000_000 + b"1 " * 300, "a.ppm")


def test_the_environment_may_allow_more_than_pillow_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    buffer = io.BytesIO()
    Image.new("RGB", (100, 100)).save(buffer, "PNG")
    monkeypatch.setenv("MTFRAME_MAX_PIXELS", "4000")
    with pytest.raises(BadImageError, match="more pixels than the limit of 4,000"):
        decode_image(buffer.getvalue(), "a.png")
    monkeypatch.setenv("MTFRAME_MAX_PIXELS", "10000")
    assert decode_image(buffer.getvalue(), "a.png")[1] == (100, 100)


def archive(path: Path, entries: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, content)
    return path


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_in_a_zip_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(DataError, match="its entry 'data' is a link or a device; nothing was unpacked"):
        _unpack(archive(tmp_path / "a.zip", {"data": b"/etc/passwd"}, mode), tmp_path, "data")
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unpacks to 50,000,000 bytes, too many for its size"):
        _unpack(archive(tmp_path / "a.zip", {"data": bytes(50_000_000)}), tmp_path, "data")
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_sgd_works_without_momentum_and_what_cannot_work_is_not_offered(tmp_path: Path) -> None:
    Trainer(Assembly(Recipe.from_plain(toy_recipe(steps=2, optimizer="sgd", momentum=0.0))), tmp_path / "run").fit()
    with pytest.raises(RecipeError, match=r"timm\.optim has no 'adahessian'"):
        Trainer(Assembly(Recipe.from_plain(toy_recipe(steps=2, optimizer="adahessian"))), tmp_path / "other")


def test_files_of_a_run_have_the_umask_of_its_user(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Trainer(Assembly(Recipe.from_plain(toy_recipe(steps=2))), tmp_path / "run").fit()
    finally:
        os.umask(before)
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in (tmp_path / "run").rglob("*") if file.is_file()}
    assert set(modes.values()) == {"0o644"}, modes
