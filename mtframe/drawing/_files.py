"""Writing pictures: quickly, in the format that is asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg
from PIL import Image
from torch import Tensor

from mtframe import files
from mtframe.errors import MtframeError, RecipeError
from mtframe.files import replacing, write_bytes

PictureFormat = Literal["jpg", "png", "webp"]
FORMATS: tuple[str, ...] = get_args(PictureFormat)

# Of a JPEG: letters stay sharp.
_QUALITY = 92

# Of a PNG: hardly larger than the smallest, in a fifth of the time.
_COMPRESSION = 1


def to_pil(image: Tensor) -> Image.Image:
    """A (3, H, W) uint8 RGB tensor as a Pillow image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def make_folder(path: Path) -> None:
    """Makes a folder for pictures. Raises RecipeError if it cannot be one."""
    try:
        files.make_folder(path)
    except OSError as error:
        raise RecipeError(f"--out: {path} cannot be a folder ({error.strerror or error})") from None


def save_figure(figure: Any, path: Path) -> None:
    """Writes a matplotlib figure as a PNG file; a link there is replaced. Raises OSError."""
    with replacing(path, follow=False) as file, warnings.catch_warnings():
        # Of scripts that the font lacks, and of names too long for the layout, which a damaged file may have.
        warnings.simplefilter("ignore")
        figure.savefig(file, format="png", dpi=120)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture file in the format that its suffix names.

    Raises:
        RecipeError: Its suffix is not that of a picture, or its folder cannot be made.
        MtframeError: It cannot be written.
    """
    make_folder(path.parent)
    suffix = path.suffix.lower()
    if suffix not in Image.registered_extensions():
        raise RecipeError(f"--out: {path} has no suffix of a picture file; expected one such as .png")
    try:
        if suffix in (".jpg", ".jpeg"):
            pixels = np.ascontiguousarray(picture.convert("RGB"))
            write_bytes(path, simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorsubsampling="444"))
            return
        options: dict[str, Any] = {"compress_level": _COMPRESSION} if suffix == ".png" else {}
        with replacing(path) as file:
            picture.save(file, Image.registered_extensions()[suffix], **options)
    except OSError as error:
        raise MtframeError(f"{path} could not be written ({error.strerror or error})") from error
    except ValueError as error:
        # A JPEG has no more than 65,500 pixels a side, a WebP no more than 16,383.
        raise MtframeError(f"{path} could not be written ({error}); choose another format") from error
