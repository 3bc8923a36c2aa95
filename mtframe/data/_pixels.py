"""One rule for what a picture looks like: whatever holds its pixels becomes 8 bits of red, green and blue.

Files are decoded to a Pillow image or an array and go through the same lines as pictures in memory, so that a file, the
image that Pillow opens of it and the array that somebody else has read give the network the same pixels.
"""

# Shapes: C channels, H height, W width.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mtframe.errors import BadImageError, RecipeError

from ._colours import profile_of, srgb_pixels

# What a caller may have a picture as, besides a file.
PictureInMemory = Image.Image | np.ndarray | Tensor

# What is seen through what is transparent: as beyond the edge of a picture that `letterbox` fits in. On it, drawings in
# black and in white are seen.
BACKDROP = 114

# Bits that a number of a grey or coloured picture may have.
_MOST_BITS = 16

# The largest float of a picture in 0..1: resampling goes a little beyond. From 1 to the least of 0..255 nobody can tell
# a picture of great contrast from one that is nearly black.
_MOST_OF_ONE, _LEAST_OF_255, _BEYOND_255 = 1.001, 16.0, 0.5

# Pixels that are converted at a time.
_AT_A_TIME = 1 << 20

_CHANNELS = "1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha)"

# Pillow's modes of one number a pixel that has more than 8 bits.
NUMBERS = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")

# What Pillow itself makes RGB of without loss of meaning.
_COLOURS = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LA", "La", "PA", "RGBA", "RGBa")


class Refused(Exception):
    """What a picture is not taken for, without its name."""


def to_rgb(picture: PictureInMemory, name: str = "the picture") -> Tensor:
    """A picture in memory as the network sees the same picture in a file.

    Numbers of more than 8 bits are scaled down from the fewest of 8, 10, 12, 14 or 16 bits that hold them all. Floats
    are in 0..1 if none is above 1, else in 0..255. What is transparent shows a grey. An EXIF orientation of a Pillow
    image is undone, and its colour profile applied.

    Args:
        picture: A Pillow image; an array (H, W), or (H, W, C) with the channels last; or a tensor (H, W), or (C, H, W)
            with the channels first. C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha), of booleans,
            integers or floats. Nobody can tell BGR, as OpenCV has it, from RGB.
        name: What errors call it.

    Returns:
        (3, H, W) uint8, RGB; the same memory if it is that already.

    Raises:
        BadImageError: It has another shape, no pixel, or numbers of which it cannot be told how bright they are.
        RecipeError: It is nothing of the kind.
    """
    try:
        if isinstance(picture, Image.Image):
            pixels = _of_image(picture)
        elif isinstance(picture, np.ndarray):
            pixels = rgb_of_values(picture)
        elif isinstance(picture, Tensor):
            pixels = rgb_of_values(_channels_last(picture))
        else:
            raise RecipeError(
                f"{name}: expected a Pillow image, an array or a tensor, got {_called(picture)}{_hint(picture)}"
            )
    except Refused as error:
        raise BadImageError(name, str(error)) from None
    # Strides below 0, as those of `bgr[..., ::-1]`, and arrays that cannot be written to are none of torch's.
    if min(pixels.strides) < 0 or not pixels.flags.writeable:
        pixels = pixels.copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _called(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}".removeprefix("builtins.")


def _hint(thing: Any) -> str:
    if isinstance(thing, bytes | bytearray | memoryview):
        return "; Image.open(io.BytesIO(data)) of PIL makes an image of a file's content"
    return ""


def _of_image(image: Image.Image) -> np.ndarray:
    if 0 in image.size:
        raise Refused(f"has no pixels, {image.width} x {image.height}")
    # Before its pixels are there: Pillow keeps the upper 8 bits of a colour, and not how many there were.
    deep = is_deep(image)
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise Refused(
            f"its pixels cannot be read ({str(error).strip() or type(error).__name__}); an image that Pillow opens "
            "reads its file when it is first used, which must still be open and whole"
        ) from None
    pixels = rgb_of_image(ImageOps.exif_transpose(without_idle_alpha(image)))
    if deep and pixels.max() < 1 << 6:
        raise Refused(
            "has 16 bits a colour, of which Pillow keeps the upper 8, and these are nearly black; give the file's path "
            "instead of the image"
        )
    return pixels


def without_idle_alpha(image: Image.Image) -> Image.Image:
    """An image; of a BMP without an alpha channel of nothing but 0, which many programs leave so and mean none."""
    if image.format == "BMP" and image.mode == "RGBA" and not any(image.getchannel("A").getextrema()):
        return image.convert("RGB")
    return image


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not decoded yet has 16 bits a colour, of which Pillow will keep 8."""
    arguments = [tile[3] for tile in getattr(image, "tile", None) or ()]
    raw = [it if isinstance(it, str) else it[0] for it in arguments if it]
    return image.mode not in NUMBERS and any(re.search(";16[BLN]$", it) for it in raw if isinstance(it, str))


def rgb_of_image(image: Image.Image, bits: int | None = None, *, negative: bool = False) -> np.ndarray:
    """The pixels of a Pillow image, which is as it is to be seen: turned upright, if it should be.

    Args:
        image: In any mode.
        bits: Of a number of a grey picture, where its file says so.
        negative: Whether 0 is white in a grey picture of more than 8 bits, which Pillow leaves as it is.

    Returns:
        (H, W, 3) uint8.

    Raises:
        Refused: Its mode or its numbers do not say how it looks.
    """
    if image.mode in NUMBERS:
        pixels = rgb_of_values(np.array(image), bits)
        return 255 - pixels if negative else pixels
    if image.mode not in _COLOURS:
        raise Refused(f"is a picture in {image.mode}; expected RGB, grey, a palette or CMYK")
    profile = image.info.get("icc_profile")
    if image.has_transparency_data:
        values = np.array(image.convert("RGBA"))
        values[..., :3] = srgb_pixels(np.ascontiguousarray(values[..., :3]), profile)
        return rgb_of_values(values)
    if image.mode == "CMYK" and (inks := profile_of(profile)) is not None and inks.mode == "CMYK":
        return np.array(inks.srgb(image))
    return srgb_pixels(np.array(image.convert("RGB")), profile)


def rgb_of_values(values: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Numbers as pixels.

    Args:
        values: (H, W) or (H, W, C).
        bits: Of an integer, where the file says so.

    Returns:
        (H, W, 3) uint8; of uint8 RGB the same array.

    Raises:
        Refused: They are of another shape, or do not say how bright they are.
    """
    # Of subclasses, a matrix has two dimensions whatever one does.
    values = np.asarray(values)
    shape = " x ".join(map(str, values.shape)) or "a single number"
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4):
        raise Refused(f"expected height x width x channels, with {_CHANNELS}, got {shape}{_axes(values)}")
    if 0 in values.shape:
        raise Refused(f"has no pixels, {shape}")
    if values.shape[2] in (1, 3):
        return _three(_bytes(values, bits))
    return _three(_seen(_bytes(values[..., :-1], bits), _bytes(values[..., -1:], None)))


def _axes(values: np.ndarray) -> str:
    if values.ndim == 4:
        return "; give several pictures as a list of them, list(batch)"
    if values.ndim == 3 and values.shape[0] in (1, 2, 3, 4):
        return "; this one has its channels first: array.transpose(1, 2, 0)"
    return ""


def _channels_last(picture: Tensor) -> np.ndarray:
    """A tensor as an array with the channels last. Raises Refused if it is none of numbers, or of another shape."""
    shape = " x ".join(map(str, picture.shape)) or "a single number"
    if picture.dim() not in (2, 3) or (picture.dim() == 3 and picture.shape[0] not in (1, 2, 3, 4)):
        hint = "; give several pictures as a list of them, list(batch)" if picture.dim() == 4 else ""
        if picture.dim() == 3 and picture.shape[2] in (1, 2, 3, 4):
            hint = "; this one has its channels last: tensor.permute(2, 0, 1)"
        raise Refused(f"expected a tensor of channels x height x width, with {_CHANNELS}, got {shape}{hint}")
    if picture.layout != torch.strided or picture.is_quantized or picture.is_meta:
        raise Refused(f"expected a tensor of plain numbers, got one that is {_stored(picture)}")
    values = picture.detach().cpu()
    if values.dtype == torch.bfloat16:
        values = values.float()
    try:
        array = values.resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError):
        raise Refused(f"expected booleans, integers or floats, got {picture.dtype}") from None
    return array if array.ndim == 2 else array.transpose(1, 2, 0)


def _stored(picture: Tensor) -> str:
    if picture.is_meta:
        return "without numbers (device meta)"
    return "quantised" if picture.is_quantized else str(picture.layout)


def _bytes(values: np.ndarray, bits: int | None) -> np.ndarray:
    """Numbers of any type as uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu":
        return _of_integers(values, bits)
    if values.dtype.kind == "f":
        return _of_floats(values)
    raise Refused(f"expected booleans, integers or floats, got {values.dtype}")


def _of_integers(values: np.ndarray, bits: int | None) -> np.ndarray:
    """By the bits that are used, in steps that cameras have: 12 of 16 would be black, and so would 8 of 32."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << _MOST_BITS:
        raise Refused(
            f"has integers from {low:,} to {high:,}, of which nobody can tell how bright they are; expected 0 to 255, "
            f"or up to {(1 << _MOST_BITS) - 1:,} of 16 bits"
        )
    used = max(8, high.bit_length())
    depth = bits if bits is not None and bits >= used else used + used % 2
    return (values >> (depth - 8)).astype(np.uint8)


def _of_floats(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(values.size - np.isfinite(values).sum())
        raise Refused(f"has {bad:,} of {values.size:,} numbers that are nan or infinite")
    if low >= 1 - _MOST_OF_ONE and high <= _MOST_OF_ONE:
        factor = 255.0
    elif low >= -_BEYOND_255 and _LEAST_OF_255 <= high <= 255 + _BEYOND_255:
        factor = 1.0
    else:
        hint = "; it looks normalised, and the model does that itself" if low < 0 else ""
        raise Refused(
            f"has floats from {low:.4g} to {high:.4g}, of which nobody can tell how bright they are; expected 0..1, or "
            f"0..255{hint}. uint8 is never in doubt"
        )
    return _by_rows(lambda some: np.rint(np.clip(some.astype(np.float32) * factor, 0, 255)).astype(np.uint8), values)


def _three(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _seen(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Pixels in front of the backdrop."""
    if alpha.min() == 255:
        return np.ascontiguousarray(pixels)
    if not alpha.any():
        raise Refused("is transparent everywhere, so that nothing of it is seen; remove its alpha channel")

    def blended(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        part = alpha.astype(np.float32) / 255
        return np.rint(BACKDROP + (pixels.astype(np.float32) - BACKDROP) * part).astype(np.uint8)

    return _by_rows(blended, pixels, alpha)


def _by_rows(convert: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """What is made of arrays, some rows at a time: floats of the largest photograph would take gigabytes."""
    rows = max(1, _AT_A_TIME // arrays[0].shape[1])
    starts = range(0, len(arrays[0]), rows)
    parts = [convert(*(array[start : start + rows] for array in arrays)) for start in starts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
