"""One rule for what a picture looks like, whether it is a file, a Pillow image, an array or a tensor."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtframe.data import Sample, exact_inputs, make_inputs, read_image, read_map, to_rgb
from mtframe.data._pixels import BACKDROP
from mtframe.errors import BadImageError, DataError, MtframeError, RecipeError
from picture_files import png16, tiff

# 0 to 255 in 12 pixels of 3 rows, as a viewer shows them.
SHOWN = np.array([[0, 23, 46, 69], [92, 115, 139, 162], [185, 208, 231, 255]])
RAMP = np.linspace(0, 1, 12).reshape(3, 4)


def of_bits(bits: int, dtype: str = "u2") -> np.ndarray:
    """The ramp from 0 to the largest number of so many bits."""
    return np.rint(RAMP * (2**bits - 1)).astype(dtype)


def grey(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values)).expand(3, *np.shape(values))


def file(folder: Path, content: bytes, name: str = "a.tif") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def close(found: torch.Tensor, wanted: Any, within: int = 1) -> bool:
    """Rounding down and to the nearest differ by one."""
    assert found.dtype == torch.uint8
    assert found.shape == wanted.shape
    return bool((found.int() - torch.as_tensor(wanted).int()).abs().max() <= within)


GREY_FILES = {
    "float in 0..1": lambda: tiff(RAMP.astype("f4")[..., None], 1),
    "float in 0..255": lambda: tiff((RAMP * 255).astype("f4")[..., None], 1),
    "float, 0 is white": lambda: tiff((1 - RAMP).astype("f4")[..., None], 0),
    "32 bits, of which 8": lambda: tiff(of_bits(8, "i4")[..., None], 1),
    "32 bits, of which 16": lambda: tiff(of_bits(16, "i4")[..., None], 1),
    "32 bits without a sign, of which 12": lambda: tiff(of_bits(12, "u4")[..., None], 1),
    **{
        f"16 bits, of which {bits}": lambda bits=bits: tiff(of_bits(bits)[..., None], 1) for bits in (8, 10, 12, 14, 16)
    },
    "16 bits, 0 is white": lambda: tiff((65535 - of_bits(16))[..., None], 0),
    "12 bits, packed": lambda: tiff(of_bits(12)[..., None], 1, bits=12),
    "8 bits, 0 is white": lambda: tiff((255 - of_bits(8, "u1"))[..., None], 0),
    **{f"PNG of 16 bits, of which {bits}": lambda bits=bits: png16(of_bits(bits)[..., None]) for bits in (8, 12, 16)},
    "PGM of 12 bits": lambda: b"P5\n4 3\n4095\n" + of_bits(12, ">u2").tobytes(),
    "PGM of 16 bits": lambda: b"P5\n4 3\n65535\n" + of_bits(16, ">u2").tobytes(),
    "PFM in 0..1": lambda: b"Pf\n4 3\n-1.0\n" + RAMP[::-1].astype("<f4").tobytes(),
}


@pytest.mark.parametrize("kind", GREY_FILES)
def test_a_grey_file_of_any_depth_looks_as_in_8_bits_and_so_does_the_image_that_pillow_opens(
    tmp_path: Path, kind: str
) -> None:
    path = file(tmp_path, GREY_FILES[kind]())
    found, size = read_image(path)
    assert size == (3, 4)
    assert close(found, grey(SHOWN)), found[0]
    if "0 is white" not in kind or "8 bits" in kind:
        with Image.open(path) as image:
            assert close(to_rgb(image), found, 0)


def test_packed_bits_are_those_that_the_file_names_however_dark_it_is(tmp_path: Path) -> None:
    """12 bits of which a dark picture uses 9: as dark as it is, unlike in 16 bits."""
    values = (of_bits(12) // 8)[..., None]
    dark = grey(SHOWN // 8)
    assert close(read_image(file(tmp_path, tiff(values, 1, bits=12)))[0], dark)
    pgm = b"P5\n4 3\n4095\n" + values.astype(">u2").tobytes()
    assert close(read_image(file(tmp_path, pgm))[0], dark)


COLOURS = np.stack([RAMP, RAMP[::-1], np.full((3, 4), 0.5)], axis=2)
COLOURS_SHOWN = np.stack([SHOWN, SHOWN[::-1], np.full((3, 4), 127)]).astype(np.uint8)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("form", ["png", "tiff", "compressed tiff"])
def test_16_bits_a_colour_are_scaled_by_those_that_are_used(tmp_path: Path, bits: int, alpha: bool, form: str) -> None:
    values = np.floor(COLOURS * (2**bits - 1)).astype(np.uint16)
    if alpha:
        values = np.concatenate([values, np.full((3, 4, 1), 65535, np.uint16)], axis=2)
    content = png16(values) if form == "png" else tiff(values, 2, alpha=alpha, deflate="c" in form)
    assert close(read_image(file(tmp_path, content))[0], torch.from_numpy(COLOURS_SHOWN))


def test_a_colour_of_16_bits_that_stands_for_nothing_is_grey(tmp_path: Path) -> None:
    values = np.array([[[65535, 0, 0], [0, 65535, 0]]], np.uint16)
    content = png16(values, transparent=(65535, 0, 0))
    assert read_image(file(tmp_path, content))[0][:, 0].T.tolist() == [[BACKDROP] * 3, [0, 255, 0]]


@pytest.mark.parametrize("colour_bits", ["15", "16"])
def test_bitmaps_of_16_bits_a_pixel_are_no_pictures_of_16_bits_a_colour(tmp_path: Path, colour_bits: str) -> None:
    """Two pixels, pure red and pure green, of 5 bits (or 6 of green) a colour, as BITMAPINFOHEADER has them."""
    red, green = (0x7C00, 0x03E0) if colour_bits == "15" else (0xF800, 0x07E0)
    masks = b"" if colour_bits == "15" else struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    head = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3 if masks else 0, 4, 0, 0, 0, 0) + masks
    pixels = struct.pack("<HH", red, green)
    start = 14 + len(head)
    content = b"BM" + struct.pack("<IHHI", start + 4, 0, 0, start) + head + pixels
    assert read_image(file(tmp_path, content, "a.bmp"))[0].tolist() == [[[255, 0]], [[0, 255]], [[0, 0]]]


def test_16_bits_a_colour_that_pillow_has_cut_to_black_are_refused_not_black(tmp_path: Path) -> None:
    path = file(tmp_path, png16(np.floor(COLOURS * 4095).astype(np.uint16)), "a.png")
    with Image.open(path) as image, pytest.raises(BadImageError, match="keeps the upper 8, and these are nearly black"):
        to_rgb(image)
    with Image.open(file(tmp_path, png16(np.floor(COLOURS * 65535).astype(np.uint16)), "b.png")) as image:
        assert close(to_rgb(image), torch.from_numpy(COLOURS_SHOWN))


# What is transparent shows the backdrop; half of it, the mean of both.
HALF = round(BACKDROP + (200 - BACKDROP) * 128 / 255)


def shown(image: Image.Image, folder: Path, suffix: str = "png", **options: Any) -> list[list[int]]:
    """The colours of the pixels of the first row in a file, which are those in memory."""
    image.save(folder / f"a.{suffix}", **options)
    found = read_image(folder / f"a.{suffix}")[0]
    with Image.open(folder / f"a.{suffix}") as opened:
        assert torch.equal(to_rgb(opened), found)
    return found[:, 0].T.tolist()


def test_what_is_transparent_shows_grey_and_not_the_colours_that_nobody_sees(tmp_path: Path) -> None:
    """A black and a white drawing on nothing, whose file is black or white everywhere but in alpha."""
    seen, nothing = [0, 255, 128], [BACKDROP] * 3
    for ink in (0, 255):
        rgba = Image.fromarray(np.array([[[ink, ink, ink, alpha] for alpha in seen]], np.uint8))
        half = [round(BACKDROP + (ink - BACKDROP) * 128 / 255)] * 3
        for suffix in ("png", "webp", "tif"):
            assert shown(rgba, tmp_path, suffix, **({"lossless": True, "exact": True} if suffix == "webp" else {})) == [
                nothing, [ink] * 3, half,
            ]  # fmt: skip
        assert shown(rgba.convert("LA"), tmp_path) == [nothing, [ink] * 3, half]


def test_a_palette_is_its_colours_and_its_transparent_ones_are_grey(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 200, 0, 10, 200, 200, 200])
    image.putdata([0, 1, 2])
    colours = [[0, 0, 0], [200, 0, 10], [200, 200, 200]]
    assert shown(image, tmp_path) == colours
    assert shown(image, tmp_path, "gif") == colours
    assert shown(image, tmp_path, transparency=bytes([0, 255, 128])) == [[BACKDROP] * 3, colours[1], [HALF] * 3]
    assert shown(image, tmp_path, "gif", transparency=0) == [[BACKDROP] * 3, *colours[1:]]


def test_a_colour_that_stands_for_nothing_is_grey(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert shown(image, tmp_path, transparency=(1, 2, 3)) == [[BACKDROP] * 3, [4, 5, 6]]


def test_a_picture_of_which_nothing_is_seen_is_refused_and_an_alpha_that_is_none_ignored(tmp_path: Path) -> None:
    hidden = Image.fromarray(np.full((2, 2, 4), (9, 8, 7, 0), np.uint8))
    hidden.save(tmp_path / "a.png")
    for refused in (lambda: read_image(tmp_path / "a.png"), lambda: to_rgb(hidden), lambda: to_rgb(np.array(hidden))):
        with pytest.raises(BadImageError, match="is transparent everywhere, so that nothing of it is seen"):
            refused()
    # Bit fields with one for alpha (BITMAPV4HEADER), of which this writer knows nothing.
    head = struct.pack("<IiiHHIIiiII", 108, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    content = b"BM" + struct.pack("<IHHI", 14 + 108 + 4, 0, 0, 14 + 108) + head + bytes([7, 8, 9, 0])
    path = file(tmp_path, content, "a.bmp")
    with Image.open(path) as image:
        assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (9, 8, 7, 0))
        assert to_rgb(image).flatten().tolist() == [9, 8, 7]
    assert read_image(path)[0].flatten().tolist() == [9, 8, 7]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[False, True]]))
    assert image.mode == "1"
    for suffix in ("png", "tif", "bmp"):
        assert shown(image, tmp_path, suffix) == [[0] * 3, [255] * 3]
    white_is_zero = tiff(np.array([[[0], [255]]], np.uint8), 0)
    assert read_image(file(tmp_path, white_is_zero))[0][0].tolist() == [[255, 0]]


# Ink in percent of 255, and what is seen of it: 255 - min(255, ink + black).
INKS = {(0, 255, 255, 0): (255, 0, 0), (255, 0, 255, 0): (0, 255, 0), (255, 255, 0, 0): (0, 0, 255),
        (0, 0, 0, 0): (255, 255, 255), (0, 0, 0, 255): (0, 0, 0), (0, 100, 0, 55): (200, 121, 200)}  # fmt: skip


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("form", ["tiff", "Adobe's JPEG", "YCCK JPEG", "in memory"])
def test_cmyk_is_ink_also_where_adobe_has_it_inverted(tmp_path: Path, ink: tuple[int, ...], form: str) -> None:
    image, path = Image.new("CMYK", (16, 16), ink), tmp_path / "a"
    if form == "tiff":
        image.save(path, "TIFF")
    elif form == "Adobe's JPEG":
        image.save(path, "JPEG", quality=100)
        assert b"Adobe" in path.read_bytes()
    elif form == "YCCK JPEG":
        path.write_bytes(simplejpeg.encode_jpeg(255 - np.array(image), quality=100, colorspace="CMYK"))
        # The transform that Adobe's marker names: 2 for YCCK.
        assert path.read_bytes().partition(b"Adobe")[2][6] == 2
    found = to_rgb(image) if form == "in memory" else read_image(path)[0]
    assert tuple(found.shape) == (3, 16, 16)
    assert (found[:, 3, 3].int() - torch.tensor(INKS[ink])).abs().max() <= 6


REFUSED_FILES = {
    "32 bits in full": (tiff(of_bits(31, "i4")[..., None], 1), r"integers from 0 to 2,147,483,647, of which nobody"),
    "32 bits without a sign": (tiff(of_bits(32, "u4")[..., None], 1), r"has integers from -"),
    "below 0": (tiff((of_bits(8, "i2") - 9)[..., None], 1), r"has integers from -9 to 246"),
    "8 bits with a sign": (tiff(of_bits(7, "i1")[..., None], 1), r"has integers with a sign"),
    "normalised floats": (tiff((RAMP * 4 - 2).astype("f4")[..., None], 1), r"floats from -2 to 2.*it looks normalised"),
    "floats of high range": (tiff((RAMP * 8).astype("f4")[..., None], 1), r"has floats from 0 to 8, .*expected 0\.\.1"),
    "floats of 16 bits": (tiff((RAMP * 65535).astype("f4")[..., None], 1), r"has floats from 0 to 6.554e\+04"),
    "floats with nan": (tiff(np.full((2, 2, 1), np.nan, "f4"), 1), r"has 4 of 4 numbers that are nan or infinite"),
    "colours in floats": (tiff(COLOURS.astype("f4"), 2), r"is a TIFF of a form that is not read here"),
    "colours in 32 bits": (tiff(np.ones((2, 2, 3), "u4"), 2), r"is a TIFF of a form that is not read here"),
    "LAB": (tiff(np.ones((2, 2, 3), "u1"), 8), r"is a picture in LAB; expected RGB, grey, a palette or CMYK"),
    "dark grey and alpha of 16 bits": (png16(np.full((2, 2, 2), 4095, np.uint16)), r"only the lower ones are used"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED_FILES)
def test_a_file_that_does_not_say_how_bright_it_is_is_refused_with_what_it_holds(tmp_path: Path, kind: str) -> None:
    content, reason = REFUSED_FILES[kind]
    with pytest.raises(BadImageError, match=rf"a\.tif: .*{reason}"):
        read_image(file(tmp_path, content))


# A picture of 3 x 4 pixels in every form that stands for it.
RGB8 = np.floor(COLOURS * 255).astype(np.uint8)
FORMS = {
    "uint8": RGB8,
    "int64": RGB8.astype(np.int64),
    "big-endian": RGB8.astype(">u2"),
    "uint16": np.floor(COLOURS * 65535).astype(np.uint16),
    "12 bits in uint16": np.floor(COLOURS * 4095).astype(np.uint16),
    "float64 in 0..1": COLOURS,
    "float32 in 0..1": COLOURS.astype(np.float32),
    "a little beyond 0..1": COLOURS * 1.0008 - 0.0004,
    "float16 in 0..1": COLOURS.astype(np.float16),
    "float32 in 0..255": COLOURS.astype(np.float32) * 255,
    "float16 in 0..255": (COLOURS * 255).astype(np.float16),
    "with alpha": np.concatenate([RGB8, np.full((3, 4, 1), 255, np.uint8)], axis=2),
    "with alpha in 0..1": np.concatenate([COLOURS, np.ones((3, 4, 1))], axis=2),
    "backwards": RGB8[..., ::-1].copy()[..., ::-1],
    "every other row": np.repeat(RGB8, 2, axis=0)[::2],
    "by columns": np.asfortranarray(RGB8),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_array_and_a_tensor_look_as_what_they_stand_for(form: str) -> None:
    values = FORMS[form]
    wanted = torch.from_numpy(COLOURS_SHOWN)
    assert close(to_rgb(values), wanted)
    if min(values.strides) > 0 and values.dtype.isnative:
        tensor = torch.from_numpy(values).permute(2, 0, 1)
        assert close(to_rgb(tensor), wanted)
        assert close(to_rgb(tensor.contiguous()), wanted)
    values = values.copy()
    values.flags.writeable = False
    # Without a warning, which is an error here.
    assert close(to_rgb(values), wanted)


def test_tensors_of_all_types_and_pictures_of_booleans() -> None:
    wanted = torch.from_numpy(COLOURS_SHOWN)
    tensor = torch.from_numpy(COLOURS).permute(2, 0, 1)
    assert close(to_rgb(tensor.bfloat16()), wanted)
    assert close(to_rgb(tensor.requires_grad_()), wanted)
    pattern = np.array([[True, False]])
    for form in (
        pattern,
        np.ma.masked_array(pattern),
        pattern.view(np.matrix),
        pattern[..., None],
        torch.from_numpy(pattern),
        torch.from_numpy(pattern)[None],
    ):
        assert to_rgb(form).tolist() == [[[255, 0]]] * 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "YCbCr", "HSV", "I", "F", "I;16", "I;16L", "I;16B"])
def test_an_image_of_every_mode_of_pillow_has_its_brightness(mode: str) -> None:
    if mode in ("I", "F"):
        image = Image.fromarray(np.array([[0, 255]], {"I": np.int32, "F": np.float32}[mode]))
    elif mode.startswith("I;16"):
        values = np.array([[0, 65535]], ">u2" if mode == "I;16B" else "<u2")
        image = Image.frombytes(mode, (2, 1), values.tobytes())
    else:
        image = Image.fromarray(np.array([[[0] * 3, [255] * 3]], np.uint8)).convert(mode)
    assert image.mode == mode
    assert close(to_rgb(image), torch.tensor([[[0, 255]]] * 3), 2)


def test_a_large_picture_is_converted_row_by_row_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    for form in (rgba, rgba[..., :3] / 255):
        whole = to_rgb(form)
        with monkeypatch.context() as few:
            few.setattr("mtframe.data._pixels._AT_A_TIME", 14)
            assert torch.equal(to_rgb(form), whole)


def test_a_picture_that_is_rgb_bytes_is_not_copied() -> None:
    tensor = torch.zeros(3, 4, 5, dtype=torch.uint8)
    assert to_rgb(tensor).data_ptr() == tensor.data_ptr()
    array = np.zeros((4, 5, 3), np.uint8)
    assert to_rgb(array).data_ptr() == array.ctypes.data


class Thing:
    """No picture."""


WRONG: dict[str, tuple[Any, type[MtframeError], str]] = {
    "channels first": (
        np.zeros((3, 8, 9)),
        BadImageError,
        r"got 3 x 8 x 9; this one has its channels first: array\.tr",
    ),
    "channels last": (
        torch.zeros(8, 9, 3),
        BadImageError,
        r"got 8 x 9 x 3; this one has its channels last: tensor\.pe",
    ),
    "a batch": (np.zeros((2, 8, 9, 3)), BadImageError, r"got 2 x 8 x 9 x 3; give several pictures as a list"),
    "a batch of tensors": (torch.zeros(2, 3, 8, 9), BadImageError, r"got 2 x 3 x 8 x 9; give several pictures as a"),
    "five channels": (np.zeros((8, 9, 5)), BadImageError, r"expected height x width x channels.*got 8 x 9 x 5"),
    "a row": (np.zeros(8), BadImageError, r"got 8$"),
    "a number": (torch.tensor(1.0), BadImageError, r"got a single number"),
    "nothing": (np.zeros((0, 8, 3)), BadImageError, r"has no pixels, 0 x 8 x 3"),
    "no pixels": (Image.new("RGB", (0, 4)), BadImageError, r"has no pixels, 0 x 4"),
    "nan": (np.array([[0.5, np.nan]]), BadImageError, r"has 1 of 2 numbers that are nan or infinite"),
    "infinite": (torch.tensor([[0.5, torch.inf]]), BadImageError, r"has 1 of 2 numbers that are nan or infinite"),
    "normalised": (torch.tensor([[-2.0, 2.2]]), BadImageError, r"floats from -2 to 2\.2.*it looks normalised"),
    "between": (np.array([[0.0, 1.5]]), BadImageError, r"has floats from 0 to 1\.5, of which nobody can tell"),
    "too large": (np.array([[0, 70000]]), BadImageError, r"integers from 0 to 70,000.*up to 65,535 of 16 bits"),
    "negative": (np.array([[-1, 7]]), BadImageError, r"integers from -1 to 7"),
    "complex": (np.zeros((2, 2), complex), BadImageError, r"expected booleans, integers or floats, got complex128"),
    "complex tensor": (torch.zeros(2, 2, dtype=torch.complex64), BadImageError, r"integers or floats, got complex64"),
    "objects": (np.array([[None]]), BadImageError, r"expected booleans, integers or floats, got object"),
    "text": (np.array([["a"]]), BadImageError, r"expected booleans, integers or floats, got <U1"),
    "meta": (torch.zeros(3, 2, 2, device="meta"), BadImageError, r"without numbers \(device meta\)"),
    "sparse": (torch.zeros(2, 2).to_sparse(), BadImageError, r"plain numbers, got one that is torch\.sparse_coo"),
    "bytes": (
        b"\xff\xd8\xff",
        RecipeError,
        r"expected a Pillow image, an array or a tensor, got bytes; Image\.open\(io",
    ),
    "none": (None, RecipeError, r"got NoneType"),
    "a list": ([[0, 1]], RecipeError, r"got list"),
    "another thing": (Thing(), RecipeError, r"got test_pixels\.Thing"),
    "LAB": (Image.new("LAB", (2, 2)), BadImageError, r"is a picture in LAB"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_picture_is_refused_with_what_came(what: str) -> None:
    thing, error, reason = WRONG[what]
    with pytest.raises(error, match=rf"^photo 7: .*{reason}"):
        to_rgb(thing, "photo 7")


def test_an_image_whose_file_is_closed_or_cut_off_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pass
    with pytest.raises(BadImageError, match=r"its pixels cannot be read \(.*which must still be open and whole"):
        to_rgb(image)
    closed = Image.new("RGB", (4, 4))
    closed.close()
    with pytest.raises(BadImageError, match=r"its pixels cannot be read \(Operation on closed image\)"):
        to_rgb(closed)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "PNG")
    with pytest.raises(BadImageError, match="its pixels cannot be read"):
        to_rgb(Image.open(io.BytesIO(whole.getvalue()[:600])))


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_no_picture_of_integers_is_black_that_uses_its_upper_half(numbers: list[int]) -> None:
    """And brighter numbers are never darker pixels, whatever they are held in."""
    values = np.array([numbers])
    found = to_rgb(values.astype(np.uint16))[0, 0].tolist()
    assert found == to_rgb(torch.tensor([numbers]))[0, 0].tolist()
    assert [pixel for _, pixel in sorted(zip(numbers, found, strict=True))] == sorted(found)
    bits = max(8, max(numbers).bit_length())
    # At least a quarter of what there is: bits go in twos, and their upper half may be unused.
    assert max(found) >= (63 if bits > 8 else max(numbers))


def test_a_map_of_32_bits_has_the_numbers_that_are_stored(tmp_path: Path) -> None:
    values = np.array([[0, 26001], [70000, 7]])
    for dtype in (np.int32, np.uint32):
        path = file(tmp_path, tiff(values.astype(dtype)[..., None], 1))
        assert read_map(path).tolist() == values.tolist()
    with pytest.raises(BadImageError, match=re.escape("is a picture in floats; expected one integer a pixel")):
        read_map(file(tmp_path, tiff(values.astype(np.float32)[..., None], 1)))


@pytest.mark.parametrize(
    ("image", "form"),
    [
        (torch.rand(3, 8, 9), r"\(3, 8, 9\) torch.float32"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), r"\(8, 9, 3\) torch.uint8"),
        (np.zeros((8, 9, 3), np.uint8), r"\(8, 9, 3\) uint8"),
        (Image.new("RGB", (9, 8)), r"Image"),
    ],
)
def test_a_data_set_that_gives_other_images_is_told_so_before_they_become_black(image: Any, form: str) -> None:
    sample = Sample(image, {}, (8, 9), index=3, id="a.png")
    unused: Any = None
    for make in (exact_inputs, lambda transform, samples: make_inputs(transform, samples, np.random.default_rng(0))):
        with pytest.raises(
            DataError, match=rf"^a\.png: expected its data set .*, got {form}; mtframe\.data\.to_rgb makes"
        ):
            make(unused, [sample])
