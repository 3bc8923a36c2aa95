"""Embedded colour profiles (ICC): pixels of another colour space become sRGB's, which networks are trained on.

A telephone writes Display P3 and a camera may write Adobe RGB; taken for sRGB, their pictures are paler than they look.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# Bytes of a profile: those of printers have half a million.
_MOST = 1 << 22

# By which two profiles for one picture may differ, of 255: versions of sRGB do by rounding.
_ALIKE = 2

# Steps of each colour in which a profile is tried.
_STEPS = 9

_APP2, _SCAN, _NAME = 0xE2, 0xDA, b"ICC_PROFILE\0"


@dataclass(frozen=True, slots=True)
class Profile:
    """A conversion to sRGB.

    Attributes:
        mode: Of the pictures that it is for, as Pillow calls it: RGB or CMYK.
        transform: What converts them.
    """

    mode: str
    transform: ImageCms.ImageCmsTransform

    def srgb(self, image: Image.Image) -> Image.Image:
        """A picture of this mode in sRGB."""
        converted = self.transform.apply(image)
        converted.info.pop("icc_profile", None)
        return converted


def profile_of(data: bytes | None) -> Profile | None:
    """What an embedded profile asks for; None if it is sRGB, grey, damaged or too large, or there is none."""
    return _profile(bytes(data)) if data and len(data) <= _MOST else None


def srgb_pixels(pixels: np.ndarray, data: bytes | None) -> np.ndarray:
    """RGB pixels (H, W, 3) uint8 with an embedded profile as sRGB."""
    profile = profile_of(data)
    if profile is None or profile.mode != "RGB":
        return pixels
    return np.array(profile.srgb(Image.fromarray(pixels)))


def jpeg_profile(data: bytes) -> bytes | None:
    """The profile in a JPEG's header (ICC.1:2010, B.4), which may lie in several segments; None without one."""
    parts, place = dict[int, bytes](), 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _SCAN:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == _APP2 and data[place + 4 : place + 16] == _NAME:
            parts[data[place + 16]] = data[place + 18 : place + 2 + length]
        place += 2 + length
    return b"".join(parts[number] for number in sorted(parts)) or None


@lru_cache(maxsize=32)
def _profile(data: bytes) -> Profile | None:
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = {"RGB ": "RGB", "CMYK": "CMYK"}.get(given.profile.xcolor_space)
        if mode is None:
            return None
        # Without its memory of the last pixel, a transform may be used by several threads.
        transform = ImageCms.buildTransform(given, _srgb(), mode, "RGB", flags=ImageCms.Flags.NOCACHE)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        # As viewers do: the pixels are there, and a damaged description of them is none.
        return None
    if mode == "RGB":
        steps = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        seen = np.array(transform.apply(Image.fromarray(colours)))
        if np.abs(seen.astype(int) - colours).max() <= _ALIKE:
            return None
    return Profile(mode, transform)


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
