"""Pictures of other colour spaces are seen in sRGB, whatever file they are in; those in sRGB keep every bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from mtframe.data import read_image, to_rgb
from mtframe.data._colours import _profile, jpeg_profile
from picture_files import icc_profile, png16

# XYZ of red, green and blue, adapted to D50: those of Apple's Display P3 profile, of Adobe RGB (1998) and of sRGB.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
# 2.2 as profiles have it, in 256ths.
GAMMA = 563 / 256


def in_srgb(pixels: np.ndarray, primaries: np.ndarray) -> np.ndarray:
    """By hand: linear light, the other primaries, IEC 61966-2-1's curve."""
    linear = (pixels / 255) ** GAMMA @ (np.linalg.inv(SRGB) @ primaries).T
    linear = linear.clip(0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(coded * 255).astype(np.uint8)


@pytest.fixture
def pixels() -> np.ndarray:
    # Moderate colours, which both spaces have; flat, so that JPEG changes them little.
    colours = np.random.default_rng(0).integers(60, 190, (4, 4, 3), dtype=np.uint8)
    return np.repeat(np.repeat(colours, 16, axis=0), 16, axis=1)


def saved(path: Path, image: Image.Image, profile: bytes, **options: Any) -> np.ndarray:
    image.save(path, icc_profile=profile, **options)
    array = read_image(path)[0].permute(1, 2, 0).numpy()
    # In a file and in memory alike.
    with Image.open(path) as opened:
        assert np.abs(to_rgb(opened).permute(1, 2, 0).numpy().astype(int) - array).max() <= 2
    return array


def apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("primaries", [P3, ADOBE], ids=["p3", "adobe-rgb"])
@pytest.mark.parametrize("form", ["png", "jpg", "webp", "tiff"])
def test_a_profile_is_applied(tmp_path: Path, pixels: np.ndarray, primaries: np.ndarray, form: str) -> None:
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(form, {})
    expected = in_srgb(pixels, primaries)
    assert apart(expected, pixels) > 10
    found = saved(tmp_path / f"a.{form}", Image.fromarray(pixels), icc_profile(primaries, GAMMA), **options)
    assert apart(found, expected) <= (6 if form == "jpg" else 2)


def test_what_is_srgb_keeps_every_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile at all", b""):
        assert np.array_equal(saved(tmp_path / "a.png", Image.fromarray(pixels), profile), pixels)
    # That of printers, which says nothing of these, and one cut off.
    for profile in (icc_profile(P3, GAMMA, b"GRAY"), icc_profile(P3, GAMMA)[:200]):
        assert np.array_equal(saved(tmp_path / "a.png", Image.fromarray(pixels), profile), pixels)


def test_alpha_and_grey_and_palettes_have_profiles_too(tmp_path: Path, pixels: np.ndarray) -> None:
    profile, expected = icc_profile(P3, GAMMA), in_srgb(pixels, P3)
    opaque = Image.fromarray(pixels).convert("RGBA")
    assert apart(saved(tmp_path / "a.png", opaque, profile), expected) <= 2
    palette = Image.fromarray(pixels).quantize(256)
    assert apart(saved(tmp_path / "p.png", palette, profile), in_srgb(np.array(palette.convert("RGB")), P3)) <= 2
    # Both have the same white, and 2.2 is nearly sRGB's curve.
    grey = Image.fromarray(pixels).convert("L")
    assert apart(saved(tmp_path / "g.png", grey, profile), np.array(grey.convert("RGB"))) <= 4


@pytest.mark.parametrize("bits", [16, 12])
def test_16_bits_a_colour_have_profiles_too(tmp_path: Path, pixels: np.ndarray, bits: int) -> None:
    deep = png16(pixels.astype(np.uint16) << (bits - 8) | 15)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG", icc_profile=icc_profile(P3, GAMMA))
        data = file.getvalue()
    # The chunk with the profile, behind the header of the other file.
    at = data.index(b"iCCP") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    (tmp_path / "a.png").write_bytes(deep[:33] + chunk + deep[33:])
    found = read_image(tmp_path / "a.png")[0].permute(1, 2, 0).numpy()
    assert apart(found, in_srgb(pixels, P3)) <= 2


def test_a_jpeg_s_profile_may_lie_in_several_segments() -> None:
    profile = np.random.default_rng(0).bytes(100_000)
    with io.BytesIO() as file:
        Image.new("RGB", (8, 8)).save(file, "JPEG", icc_profile=profile)
        data = file.getvalue()
    assert jpeg_profile(data) == profile
    with io.BytesIO() as file:
        Image.new("RGB", (8, 8)).save(file, "JPEG")
        plain = file.getvalue()
    assert jpeg_profile(plain) is None
    # Whatever is cut off or damaged ends the search.
    for cut in range(0, 200, 7):
        jpeg_profile(data[:cut])
    assert jpeg_profile(b"\xff\xd8" + b"\xff\xe2\0\0" * 1000) is None


def test_a_profile_is_read_once(tmp_path: Path, pixels: np.ndarray) -> None:
    _profile.cache_clear()
    for number in range(3):
        saved(tmp_path / f"{number}.png", Image.fromarray(pixels), icc_profile(P3, GAMMA))
    assert _profile.cache_info().misses == 1
