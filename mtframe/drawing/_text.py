"""Letters on pictures: a font, sizes that are legible, and texts that fit. All text that is drawn is drawn here."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mtframe.errors import one_line

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@cache
def font_of(size: int) -> Font:
    """The font at a size in pixels."""
    # Pillow's own has little beyond ASCII; matplotlib brings one with Latin, Greek and Cyrillic letters.
    found = find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def text_size(picture: Image.Image) -> int:
    """Pixels of a text that is legible on a picture whatever its size."""
    return max(13, round(min(picture.size) / 32))


def shorten(text: str, font: Font, width: int) -> str:
    """A text that is no wider than `width` pixels, with an ellipsis where it was cut."""
    text = one_line(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def width_of(text: str, font: Font) -> int:
    """Pixels that a text takes in a line."""
    return round(font.getlength(one_line(text)))


def extent_of(draw: ImageDraw.ImageDraw, text: str, font: Font) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a text's ink when it is drawn at (0, 0)."""
    return draw.textbbox((0, 0), one_line(text), font=font)


def draw_text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, ink: str, font: Font) -> None:
    """Draws a text as one line: names have letters that no font has, and that libraqm refuses."""
    draw.text(at, one_line(text), fill=ink, font=font)
