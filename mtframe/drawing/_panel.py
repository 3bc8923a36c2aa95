"""The panel below a picture: what is said of all of it, and what the colours of regions mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from mtframe.marks import Bar, Text
from mtframe.palette import COLOURS

from ._regions import Region
from ._text import Font, draw_text, font_of, shorten, text_size, width_of

INK = "#1A1A1A"
_GREY_INK = "#5A5A5A"
TRACK = "#DDDDDD"

# A text, a value with a bar, or regions whose names and colours are listed.
Row = Text | Bar | Sequence[Region]

# Entries of a line of such a list: where each begins, its name and its colour.
_Entries = list[tuple[int, str, str]]


# Lines of a film's panel for the names of regions: the largest ones are listed.
_LEGEND = 4


def add_panel(picture: Image.Image, said: Mapping[str, Sequence[Row]], height: int | None = None) -> Image.Image:
    """Adds a panel below a picture with a block for each who says something.

    Args:
        picture: The picture.
        said: What each says, by a title.
        height: Pixels of the panel, whatever is said; lines that find no room are left out. None for as many as it
            takes.
    """
    size = text_size(picture)
    font, pad = font_of(size), size // 2
    line = round(1.6 * size)
    width = _width(picture, size)
    blocks = {title: list(_lines(rows, font, width - 2 * pad, size)) for title, rows in said.items()}
    blocks = {title: lines for title, lines in blocks.items() if lines}
    if not (blocks if height is None else height):
        return picture
    whole = _height([len(lines) for lines in blocks.values()], size)
    canvas = Image.new("RGB", (width, picture.height + (whole if height is None else height)), "white")
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    y = picture.height + pad
    for title, lines in blocks.items():
        for its in (title, *lines):
            if y + line > canvas.height:
                return canvas
            if isinstance(its, str):
                draw_text(draw, (pad, y), shorten(its, font, width - 2 * pad), _GREY_INK, font)
            else:
                _draw_line(draw, its, (pad, y, width - pad, y + line), font, size)
            y += line
        y += pad
    return canvas


def panel_size(
    picture: Image.Image, said: Mapping[str, Sequence[Row]], legends: Mapping[str, Sequence[Sequence[str]]]
) -> tuple[int, int]:
    """(width, height) of a panel below a picture that has room for texts, bars and the names of regions.

    Args:
        picture: The picture.
        said: Texts and bars, by a title.
        legends: By a title, the names that regions may have; of many there is room for some.
    """
    size = text_size(picture)
    font, width = font_of(size), _width(picture, size)
    counts = []
    for title, rows in said.items():
        listed = [
            [Region(name, "", np.zeros((0, 0), np.bool_), 0.0) for name in names] for names in legends.get(title, ())
        ]
        names = sum(min(_LEGEND, len(list(_lines([one], font, width - size, size)))) for one in listed)
        if count := len(rows) + names:
            counts.append(count)
    return width, _height(counts, size) if counts else 0


def _width(picture: Image.Image, size: int) -> int:
    return max(picture.width, 16 * size)


def _height(counts: Sequence[int], size: int) -> int:
    """Pixels of a panel with so many lines in each of its blocks, and a title above each."""
    return sum(count + 1 for count in counts) * round(1.6 * size) + (len(counts) + 1) * (size // 2)


def _lines(rows: Sequence[Row], font: Font, width: int, size: int) -> Iterator[Text | Bar | _Entries]:
    """Rows, regions in as many lines as they need."""
    for row in rows:
        if isinstance(row, Text | Bar):
            yield row
            continue
        entries: _Entries = []
        x = 0
        for region in row:
            taken = width_of(region.name, font) + 2 * size
            if x + taken > width and entries:
                yield entries
                entries, x = [], 0
            entries.append((x, region.name, region.colour))
            x += taken + size
        if entries:
            yield entries


def _draw_line(
    draw: ImageDraw.ImageDraw, line: Text | Bar | _Entries, place: tuple[int, int, int, int], font: Font, size: int
) -> None:
    x0, y0, x1, _ = place
    if isinstance(line, Text):
        draw_text(draw, (x0, y0), shorten(line.text, font, x1 - x0), INK, font)
    elif isinstance(line, Bar):
        _draw_bar(draw, line, place, font, size)
    else:
        for x, name, colour in line:
            draw.rectangle((x0 + x, y0 + size // 8, x0 + x + size, y0 + size // 8 + size), fill=colour)
            draw_text(draw, (x0 + x + 3 * size // 2, y0), shorten(name, font, x1 - x0 - 2 * size), INK, font)


def _draw_bar(draw: ImageDraw.ImageDraw, bar: Bar, place: tuple[int, int, int, int], font: Font, size: int) -> None:
    """A name at the left, its value at the right, and between them a bar."""
    x0, y0, x1, _ = place
    middle = x0 + (x1 - x0) * 45 // 100
    draw_text(draw, (x0, y0), shorten(bar.name, font, middle - x0 - size // 2), INK, font)
    right = x1 - width_of(bar.value, font)
    draw_text(draw, (right, y0), bar.value, INK, font)
    end = x1 - 5 * size
    if bar.part is not None and end > middle:
        top, bottom = y0 + size // 4, y0 + size
        draw.rectangle((middle, top, end, bottom), fill=TRACK)
        if bar.part > 0:
            draw.rectangle((middle, top, middle + round((end - middle) * min(1.0, bar.part)), bottom), fill=COLOURS[5])
