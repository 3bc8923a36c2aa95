"""Reading image files: whatever is a picture becomes RGB, whatever is none is a named error."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from mtframe.data import DecodeSize, read_image, read_map
from mtframe.errors import BadImageError, DataError


def picture(height: int = 48, width: int = 64) -> Image.Image:
    """Smooth, so that JPEG keeps its colours: red grows to the right, green downwards, blue is 40."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40)], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def expected(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, "JPEG", quality=95, subsampling=0, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_a_jpeg_is_rgb_uint8_with_its_size_as_height_and_width(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    pixels, size = read_image(path)
    assert (pixels.dtype, tuple(pixels.shape), size) == (torch.uint8, (3, 48, 64), (48, 64))
    assert (pixels.int() - expected(picture()).int()).abs().max() <= 6
    assert torch.equal(read_image(str(path))[0], pixels)


@pytest.mark.parametrize(
    ("decode_size", "scaled"),
    # Halves only: what lies between is slower to decode than the whole image.
    [
        (None, (480, 640)),
        (DecodeSize(), (60, 80)),
        (DecodeSize(shorter=9000), (480, 640)),
        (DecodeSize(shorter=241), (480, 640)),
        (DecodeSize(shorter=240), (240, 320)),
        (DecodeSize(longer=321), (480, 640)),
        (DecodeSize(longer=320), (240, 320)),
        (DecodeSize(shorter=60, longer=81), (120, 160)),
        (DecodeSize(shorter=61, longer=1), (120, 160)),
    ],
)
def test_a_jpeg_is_decoded_no_smaller_than_asked_and_keeps_its_size_on_disk(
    tmp_path: Path, decode_size: DecodeSize | None, scaled: tuple[int, int]
) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(jpeg(picture(480, 640)))
    pixels, size = read_image(path, decode_size)
    assert size == (480, 640)
    assert tuple(pixels.shape[1:]) == scaled
    # The picture is the same: red in the middle of it is half of 255.
    assert abs(int(pixels[0, scaled[0] // 2, scaled[1] // 2]) - 127) <= 4


@pytest.mark.parametrize("least", [1, 7, 100, 101, 149, 199])
@pytest.mark.parametrize("sides", [(200, 333), (333, 200), (201, 201)])
def test_odd_sides_are_never_decoded_below_what_is_asked(tmp_path: Path, least: int, sides: tuple[int, int]) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(jpeg(picture(*sides)))
    for decode_size, side in ((DecodeSize(shorter=least), min), (DecodeSize(longer=least), max)):
        pixels, size = read_image(path, decode_size)
        assert size == sides
        assert side(pixels.shape[1:]) >= least


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_exif_orientation_is_applied_where_asked_as_pillow_does(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path, exif = tmp_path / f"phone.{suffix}", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture(24, 40).save(path, exif=exif, quality=95, subsampling=0)
    with Image.open(path) as stored:
        turned = ImageOps.exif_transpose(stored)
    for upright, wanted in ((False, picture(24, 40)), (True, turned)):
        pixels, size = read_image(path, upright=upright)
        assert size == tuple(pixels.shape[1:]) == (wanted.height, wanted.width)
        assert (pixels.int() - expected(wanted).int()).abs().max() <= 6


def test_a_file_is_never_handed_to_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for Encapsulated PostScript, whatever the file is called."""
    path = tmp_path / "person.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(BadImageError, match=r"person\.jpg: is not an image of a kind that is read here \(JPEG, PNG"):
        read_image(path)


def test_other_formats_ignore_the_decode_size(tmp_path: Path) -> None:
    picture(480, 640).save(tmp_path / "large.png")
    assert tuple(read_image(tmp_path / "large.png", DecodeSize(shorter=60))[0].shape) == (3, 480, 640)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "ppm", "tif"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    picture().save(path, lossless=True)
    assert torch.equal(read_image(path)[0], expected(picture()))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA"])
def test_grey_palettes_and_alpha_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    picture().convert(mode).save(path)
    pixels, size = read_image(path)
    assert (tuple(pixels.shape), size) == ((3, 48, 64), (48, 64))
    assert torch.equal(pixels, expected(picture().convert(mode).convert("RGB")))


def test_a_transparent_palette_warns_nobody(tmp_path: Path) -> None:
    # Warnings are errors here; Pillow gives one for this kind of file.
    path = tmp_path / "a.png"
    picture().convert("P").save(path, transparency=bytes([0, 128] * 128))
    assert read_image(path)[1] == (48, 64)


def test_sixteen_bits_of_grey_are_scaled_not_clipped_to_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 256, 40000, 65535]], np.uint16)).save(path)
    assert read_image(path)[0].tolist() == [[[0, 1, 156, 255]]] * 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture().convert(mode)))
    pixels, size = read_image(path, DecodeSize(shorter=24))
    assert size == (48, 64)
    wanted = expected(picture().convert(mode).convert("RGB").resize((pixels.shape[2], pixels.shape[1])))
    assert (pixels.int() - wanted.int()).abs().max() <= 12


def test_a_content_is_read_as_what_it_is_not_as_what_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture().save(path, "PNG")
    assert torch.equal(read_image(path)[0], expected(picture()))


@pytest.mark.parametrize("extra", ["behind the end", "before the end"])
def test_extra_bytes_of_cameras_do_no_harm(tmp_path: Path, extra: str) -> None:
    whole, path = jpeg(), tmp_path / "a.jpg"
    path.write_bytes(whole + b"\1\2\3" if extra == "behind the end" else whole[:-2] + b"\1\2\3" + whole[-2:])
    pixels, size = read_image(path)
    assert size == (48, 64)
    assert (pixels.int() - expected(picture()).int()).abs().max() <= 6


BAD = {
    "half.jpg": (jpeg()[: len(jpeg()) // 2], "Premature end"),
    "end.jpg": (jpeg()[:-2], "Premature end"),
    "extra-and-half.jpg": (jpeg()[:-40] + b"\1\2", "cannot be decoded"),
    "header.jpg": (jpeg()[:20], "JPEG header is damaged or cut off"),
    "half.png": (png_header(64, 48)[:-12], "cannot be decoded"),
    "short.png": (png_header(64, 48), "cannot be decoded"),
    "empty.jpg": (b"", "is empty"),
    "page.jpg": (b"<html>404</html>", "is not an image"),
    "bomb.png": (png_header(10_001, 10_000), r"10001x10000 pixels, more than the limit of 100,000,000"),
    "huge.png": (png_header(60_000, 60_000), r"bomb"),
    "bomb.jpg": (
        jpeg().replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 60_000, 60_000), 1),
        "more than the limit",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_image_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadImageError, match=reason) as caught:
        read_image(path, DecodeSize(shorter=32))
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert caught.value.path == str(path)
    assert "BytesIO" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"none\.jpg: No such file or directory"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(BadImageError, match="Is a directory"):
        read_image(tmp_path)


def test_the_error_of_one_image_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BadImageError("a.jpg", "is empty")))  # noqa: S301
    assert (str(error), error.path, error.reason) == ("a.jpg: is empty", "a.jpg", "is empty")
    assert isinstance(error, DataError)


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A PNG of numbers with so few bits as no common writer makes them but optimisers do."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def packed(row: list[int]) -> bytes:
        text = "".join(f"{value:0{bits}b}" for value in row)
        return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row) for row in values.tolist())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_map_has_the_numbers_that_are_stored(tmp_path: Path, bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (5, 7))
    (tmp_path / "mask.png").write_bytes(grey_png(values, bits))
    numbers = read_map(tmp_path / "mask.png")
    assert numbers.dtype == (torch.int32 if bits == 16 else torch.uint8)
    assert numbers.tolist() == values.tolist()


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
def test_of_a_palette_the_places_are_the_numbers(tmp_path: Path, colours: int) -> None:
    values = np.random.default_rng(0).integers(0, colours, (5, 7), dtype=np.uint8)
    image = Image.new("P", (7, 5))
    image.putdata(values.flatten().tolist())
    image.putpalette(np.random.default_rng(1).integers(0, 255, 3 * colours).tolist())
    image.save(tmp_path / "mask.png")
    assert read_map(tmp_path / "mask.png").tolist() == values.tolist()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (jpeg(), r"is not an image of a kind that is read here \(PNG, TIFF, BMP\)"),
        (png_header(40_000, 10_000), "decompression bomb"),
        (grey_png(np.random.default_rng(0).integers(0, 256, (40, 40)), 8)[:900], r"cannot be decoded \(.*truncated"),
    ],
    ids=["empty", "jpeg", "bomb", "truncated"],
)
def test_a_map_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "mask.png").write_bytes(content)
    with pytest.raises(BadImageError, match=rf"mask\.png: .*({reason})"):
        read_map(tmp_path / "mask.png")


def test_a_picture_of_colours_is_no_map(tmp_path: Path) -> None:
    picture().save(tmp_path / "mask.png")
    with pytest.raises(BadImageError, match=r"is a picture in RGB; expected one integer a pixel, grey or with a pal"):
        read_map(tmp_path / "mask.png")
    with pytest.raises(BadImageError, match=r"gone\.png: No such file"):
        read_map(tmp_path / "gone.png")
