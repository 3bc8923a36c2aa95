"""Reading images: fast for JPEG, safe for everything."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import simplejpeg
import torch
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from mtframe.errors import BadImageError, RecipeError
from mtframe.paths import regular

from ._colours import jpeg_profile, srgb_pixels
from ._pixels import NUMBERS, is_deep, rgb_of_image, rgb_of_values, without_idle_alpha
from ._pixels import Refused as _Refused
from ._sample import DecodeSize

# Above this an image is refused before it is decoded: a 50 kB file can claim to hold gigabytes. The environment may ask
# for another limit, see `most_pixels`.
MAX_PIXELS = 100_000_000

# Bytes of an image file.
MAX_BYTES = 1 << 30

# Scans of a progressive JPEG: each is a pass over all of its pixels, for two bytes. Encoders write about 10.
_MAX_SCANS, _SCANS_OF_LARGEST = 100, 20

# Whether an image is turned as its EXIF orientation says; or what decides that.
Upright = bool | Callable[["Header"], bool]

# Not all that Pillow knows: it hands Encapsulated PostScript, whatever the file is called, to an interpreter.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")

# What follows `ftyp` in a HEIC file (ISO/IEC 23008-12, annex B), which Pillow reads with another package's help.
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_HEIF_MODULE, _HEIF_FORMAT = "pillow_heif", "HEIF"

# Errors of reading that say nothing of the file: memory, or the number of open files, is short.
_NOT_THE_FILES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)

# That decoding may take: coefficients of a progressive JPEG and two canvases of a WebP are the most.
_BYTES_A_PIXEL = 16

_JPEG = b"\xff\xd8\xff"
_TEXT_PPM = (b"P1", b"P2", b"P3")
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339

# In names of Pillow's raw modes: which byte of two comes first, and the order that takes the other one.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SCAN = b"\xff\xda"
_PNG = b"\x89PNG\r\n\x1a\n"

# Of maps of numbers: formats that keep them as they are.
_MAP_FORMATS = ("PNG", "TIFF", "BMP")

# What Pillow multiplies the values of a grey PNG by, by their bits.
_STRETCHED = {2: 85, 4: 17}


def most_pixels() -> int:
    """The limit in force: `MTFRAME_MAX_PIXELS` of the environment, or the default.

    Raises:
        RecipeError: The environment asks for what is no number of pixels.
    """
    given = os.environ.get("MTFRAME_MAX_PIXELS")
    if not given:
        return MAX_PIXELS
    if not (given.isdecimal() and len(given) <= 18 and int(given) > 0):
        raise RecipeError(f"MTFRAME_MAX_PIXELS: expected a number of pixels, as 100000000, got {given!r}")
    return int(given)


def read_image(
    path: str | os.PathLike[str], decode_size: DecodeSize | None = None, *, upright: Upright = False
) -> tuple[Tensor, tuple[int, int]]:
    """Reads an image file as RGB.

    Args:
        path: A JPEG, PNG, WebP, AVIF, BMP, GIF, TIFF or PPM file, and HEIC where pillow-heif is installed. Palettes,
            grey, CMYK, 16 bits, floats and what is transparent become RGB as in `to_rgb`.
        decode_size: If given, a JPEG may be decoded at half its size or less, as long as its sides keep that many
            pixels: faster for large photographs.
        upright: Whether to turn the image as its EXIF orientation says and every viewer does; or what says so of an
            image that its orientation turns, by its `Header`: coordinates may be labelled on the stored pixels.

    Returns:
        The image, (3, H, W) uint8, and its (height, width) on disk; turned, if it was.

    Raises:
        BadImageError: The file is missing, empty, truncated, no image, holds more pixels than `most_pixels`, or numbers
            of which it cannot be told how bright they are.
        OSError: Too many files are open, or memory is short, which says nothing of this one.
        MemoryError: Likewise.
    """
    try:
        data = regular(path, MAX_BYTES).read_bytes()
    except OSError as error:
        if error.errno in _NOT_THE_FILES:
            raise
        raise BadImageError(path, error.strerror or str(error)) from None
    return decode_image(data, path, decode_size, upright=upright)


def decode_image(
    data: bytes, name: str | os.PathLike[str], decode_size: DecodeSize | None = None, *, upright: Upright = False
) -> tuple[Tensor, tuple[int, int]]:
    """Decodes what an image file holds, as `read_image` does; for images that lie in other files (records).

    Args:
        data: The bytes of the file.
        name: What errors call it.
        decode_size: As in `read_image`.
        upright: As in `read_image`.

    Raises:
        BadImageError: The data is empty, truncated, no image, or holds more pixels than `most_pixels`.
        MemoryError: There is no room to decode it.
    """
    # Before: below, whatever is raised is laid to the image.
    most_pixels()
    try:
        array, size = _decode_jpeg(data, decode_size) if data.startswith(_JPEG) else _decode_other(data)
    except _Refused as error:
        raise BadImageError(name, str(error)) from None
    except MemoryError:
        # That says nothing of the image.
        raise
    except Exception as error:
        _check_memory(data)
        # Decoders raise whatever they like on garbage: ValueError, SyntaxError, struct.error, OSError, ...
        raise BadImageError(name, f"cannot be decoded ({str(error).strip() or type(error).__name__})") from None
    image = torch.from_numpy(array).permute(2, 0, 1)
    if upright is False or (orientation := _orientation(data)) == 1:
        return image, size
    turns = upright if isinstance(upright, bool) else upright(Header(size, orientation))
    return _turned(image, size, orientation) if turns else (image, size)


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself before it is decoded.

    Attributes:
        size: (height, width) in pixels as it is stored.
        orientation: Its EXIF orientation, 1 to 8; 1 where there is none.
    """

    size: tuple[int, int]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) as every viewer shows it."""
        return self.size[::-1] if 5 <= self.orientation <= 8 else self.size


def read_header(path: str | os.PathLike[str]) -> Header:
    """Reads an image's size and EXIF orientation, and no pixel.

    Raises:
        BadImageError: The file is missing, empty, no image, or holds more pixels than `most_pixels`.
        OSError: As in `read_image`; so is MemoryError.
    """
    with _laid_to(path), regular(path, MAX_BYTES).open("rb") as file:
        image = _opened_file(file, _FORMATS)
        return Header((image.height, image.width), _exif_orientation(image))


def read_map(path: str | os.PathLike[str]) -> Tensor:
    """Reads a picture file of one number per pixel as these numbers, such as a mask of class numbers.

    Args:
        path: A PNG, TIFF or BMP file: grey of up to 32 bits, or a palette, whose places are the numbers.

    Returns:
        (H, W), uint8, or int32 of 16 and 32 bits.

    Raises:
        BadImageError: The file is missing, damaged, of another form, or holds more pixels than `most_pixels`.
        OSError: As in `read_image`; so is MemoryError.
    """
    with _laid_to(path):
        return torch.from_numpy(_decode_map(regular(path, MAX_BYTES).read_bytes()))


@contextmanager
def _laid_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lays what is raised within to an image file, but for what says nothing of it. Hides warnings of decoders."""
    # Before: a wrong limit is not the image's fault.
    most_pixels()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _Refused as error:
        raise BadImageError(path, str(error)) from None
    except MemoryError:
        raise
    except OSError as error:
        if error.errno in _NOT_THE_FILES:
            raise
        raise BadImageError(path, error.strerror or f"cannot be decoded ({str(error).strip()})") from None
    except Exception as error:
        raise BadImageError(path, f"cannot be decoded ({str(error).strip() or type(error).__name__})") from None


def _decode_map(data: bytes) -> np.ndarray:
    with _opened(data, _MAP_FORMATS) as image:
        if image.mode.startswith("I;16"):
            return np.array(image).astype(np.int32)
        if image.mode == "I":
            return np.array(image)
        if image.mode not in ("1", "L", "P"):
            kind = "floats" if image.mode == "F" else image.mode
            raise _Refused(f"is a picture in {kind}; expected one integer a pixel, grey or with a palette")
        array = np.array(image).astype(np.uint8, copy=False)
    # Bytes 24 and 25 of a PNG are the bits of a number and what it stands for, 0 for grey.
    stretched = _STRETCHED.get(data[24], 1) if data.startswith(_PNG) and data[25] == 0 else 1
    return array // np.uint8(stretched)


def _orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            # Of tags that mean nothing, a line each.
            warnings.simplefilter("ignore")
            return _exif_orientation(image)
    except MemoryError:
        raise
    except Exception:
        # The pixels could be read, so whatever is wrong with the rest of the file does not matter.
        return 1


def _exif_orientation(image: Image.Image) -> int:
    try:
        # A PNG's own method decodes the picture, to look behind its pixels.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        # Whatever is wrong with the EXIF data does not matter to the pixels.
        return 1


def _turned(image: Tensor, size: tuple[int, int], orientation: int) -> tuple[Tensor, tuple[int, int]]:
    """Undoes an EXIF orientation (CIPA DC-008, tag 0x0112): 5 to 8 exchange rows and columns, then come mirrors."""
    if 5 <= orientation <= 8:
        image, size = image.transpose(1, 2), (size[1], size[0])
    mirrored = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return image.flip(mirrored) if mirrored else image, size


def _check_memory(data: bytes) -> None:
    """Raises MemoryError if there is no room to decode an image: decoders then say whatever they like of it."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            warnings.simplefilter("ignore")
            pixels = image.height * image.width
    except MemoryError:
        raise
    except Exception:
        # WebP is decoded when it is opened. Of garbage this is as good as any number.
        pixels = _webp_pixels(data) if data[8:12] == b"WEBP" else len(data)
    np.empty(min(pixels, most_pixels()) * _BYTES_A_PIXEL, dtype=np.uint8)


def _webp_pixels(data: bytes) -> int:
    """As its header says (developers.google.com/speed/webp/docs/riff_container)."""
    if data[12:16] == b"VP8X":
        return (int.from_bytes(data[24:27], "little") + 1) * (int.from_bytes(data[27:30], "little") + 1)
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    return (int.from_bytes(data[26:28], "little") & 0x3FFF) * (int.from_bytes(data[28:30], "little") & 0x3FFF)


def _opened(data: bytes, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """What Pillow reads of a file's bytes, before it decodes anything."""
    return _opened_file(io.BytesIO(data), formats)


def _opened_file(file: IO[bytes], formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """What Pillow reads of a file, before it decodes anything."""
    data = file.read(32)
    file.seek(0)
    if not data:
        raise _Refused("is empty")
    if data.startswith(_TEXT_PPM):
        # Pillow's reader takes minutes for ten megabytes of comments.
        raise _Refused("is a PPM in text; expected a binary one (P4, P5 or P6)")
    if (heif := _is_heif(data)) and formats is _FORMATS:
        _learn_heif()
        formats = (_HEIF_FORMAT,)
    if Image.MAX_IMAGE_PIXELS is not None:
        # Pillow's own limit, where the user has asked for more.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most_pixels())
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        if data.startswith(_TIFF):
            raise _Refused(
                "is a TIFF of a form that is not read here: damaged, or of colours in 32 bits or floats; save it with "
                "8 bits"
            ) from None
        kinds = "a HEIC file" if heif else f"an image of a kind that is read here ({', '.join(formats)})"
        raise _Refused(f"is not {kinds}") from None
    except Image.DecompressionBombError:
        raise _Refused(f"has more pixels than the limit of {most_pixels():,} (a decompression bomb?)") from None
    _check_size(image.height, image.width)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded as a whole, however little of it is the image.
        tags = image.tag_v2
        _check_size(int(tags.get(_TILE_LENGTH, 0)), int(tags.get(_TILE_WIDTH, 0)))
    return image


def _is_heif(data: bytes) -> bool:
    """Whether a file says that it is HEIC, as telephones write it; AVIF has the same frame, and its own brands."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[8:32]


def _learn_heif() -> None:
    """Has Pillow read HEIC. Raises _Refused where the package that does it is not installed."""
    if _HEIF_FORMAT in Image.OPEN:
        return
    try:
        importlib.import_module(_HEIF_MODULE).register_heif_opener()
    except ImportError:
        raise _Refused("is a HEIC file, which is read with pillow-heif; get it with: pip install pillow-heif") from None


def _check_size(height: int, width: int) -> None:
    if height * width > (limit := most_pixels()):
        raise _Refused(
            f"{width}x{height} pixels, more than the limit of {limit:,} (a decompression bomb?); a good image is "
            f"allowed with MTFRAME_MAX_PIXELS={height * width} in the environment"
        )


def _decode_jpeg(data: bytes, decode_size: DecodeSize | None) -> tuple[np.ndarray, tuple[int, int]]:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, LookupError):
        raise _Refused("its JPEG header is damaged or cut off") from None
    _check_size(height, width)
    limit = min(_MAX_SCANS, _SCANS_OF_LARGEST * most_pixels() // max(height * width, 1))
    if (scans := data.count(_SCAN)) > limit:
        raise _Refused(f"has {scans:,} scans, more than the limit of {limit} for its {height * width:,} pixels")
    if colorspace in ("CMYK", "YCCK", "CMYK/YCCK"):
        return _decode_other(data)
    least_height, least_width = 0, 0
    if decode_size is not None:
        factor = max(decode_size.shorter / min(height, width), decode_size.longer / max(height, width))
        if factor < 1:
            # The scaled sides are what libjpeg rounds up to, so ask for both sides in proportion.
            least_height, least_width = (int(side * factor + 1e-6) for side in (height, width))
    try:
        # Factors between 1 and 2 have no SIMD code: they take longer than decoding the whole image.
        array = simplejpeg.decode_jpeg(
            data, colorspace="RGB", fastdct=False, fastupsample=False,
            min_height=least_height, min_width=least_width, min_factor=2, strict=True,
        )  # fmt: skip
    except ValueError as error:
        # Harmless, and some cameras write them; Pillow skips them and still refuses a truncated file.
        if "extraneous bytes" in str(error):
            return _decode_other(data)
        raise
    return srgb_pixels(array, jpeg_profile(data)), (height, width)


def _decode_other(data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
    with warnings.catch_warnings():
        # Of large images, before Pillow refuses them (the limit above is ours), and of transparent palettes.
        warnings.simplefilter("ignore")
        with _opened(data, _FORMATS) as image:
            bits, negative = _numbers_of(image)
            if is_deep(image):
                array = _decode_deep(data, image)
            else:
                array = rgb_of_image(without_idle_alpha(image), bits, negative=negative)
    return array, (array.shape[0], array.shape[1])


def _numbers_of(image: Image.Image) -> tuple[int | None, bool]:
    """Of a grey picture of more than 8 bits: how many bits its format says it has, and whether 0 is white."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if image.mode == "L" and 2 in tags.get(_SAMPLE_FORMAT, ()):
            raise _Refused("has integers with a sign; expected 0 to 255")
        (bits, *_) = tags.get(_BITS, (0,))
        return (bits if 8 < bits < 16 else None), image.mode in NUMBERS and tags.get(_PHOTOMETRIC) == 0
    # Pillow scales a PGM to its 16 bits, by the largest value that the file names.
    return (16 if image.format == "PPM" and image.mode == "I" else None), False


def _decode_deep(data: bytes, image: ImageFile.ImageFile) -> np.ndarray:
    """16 bits a colour: the upper 8, or fewer than 16 bits by what is used of them, as of grey.

    Pillow keeps one byte of two. Which, is a matter of the order that it is told they are in.
    """
    upper = np.array(image)
    colours = upper if image.mode in ("RGB", "RGBX", "CMYK") else upper[..., :-1]
    if image.mode == "CMYK" or colours.max() >= 1 << 6:
        return rgb_of_image(image)
    with _opened(data, _FORMATS) as again:
        again.tile = [tile._replace(args=_in_other_order(tile.args)) for tile in again.tile]
        try:
            lower = np.array(again)
        except ValueError:
            raise _Refused("has 16 bits a colour, of which only the lower ones are used; save it with 8 bits") from None
    values = upper.astype(np.uint16) << 8 | lower
    pixels = rgb_of_values(values[..., :3] if image.mode == "RGBX" else values)
    return srgb_pixels(pixels, image.info.get("icc_profile"))


def _in_other_order(arguments: Any) -> Any:
    """What Pillow's decoder is told of a tile, with the other order of two bytes: `RGB;16L` for `RGB;16B`."""
    if isinstance(arguments, tuple):
        return _in_other_order(arguments[0]), *arguments[1:]
    return arguments[:-1] + _OTHER_ORDER[arguments[-1]]
