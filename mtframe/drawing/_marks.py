"""Marks on a picture: masks and lines, boxes and points with labels that keep apart, and a panel below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from mtframe.marks import Bar, Box, Colour, Mark, Mask, Point, Polyline, Text
from mtframe.palette import COLOURS

from ._text import Font, font_of, shorten, text_size

# A smaller picture is enlarged before it is drawn on, so that labels do not cover it.
_LEAST_SIDE = 480
# Not enlarged beyond this: a strip of a few pixels' height would become gigabytes.
_MOST_SIDE = 4 * _LEAST_SIDE
# Part of a label that may lie over others; beyond, it is left out.
_HIDDEN = 0.25
# Opacity of masks.
_OPACITY = 0.5
_INK = "#1A1A1A"
_GREY_INK = "#5A5A5A"
_GREY = "#999999"
_TRACK = "#DDDDDD"
_BICUBIC, _NEAREST = Image.Resampling.BICUBIC, Image.Resampling.NEAREST

Rectangle = tuple[float, float, float, float]


def draw_marks(
    picture: Image.Image, marks: Mapping[str, Sequence[Mark]], *, threshold: float = 0.0, longest: int | None = None
) -> Image.Image:
    """A copy of a picture with marks on it, and below it a panel with what is said of the whole picture.

    Args:
        picture: The picture.
        marks: By who says so, such as a task; in pixels of the picture.
        threshold: Marks with a lower score are left out.
        longest: Pixels of the longer side of what is returned, without a panel: for sheets of tiles so large, whose
            captions say the rest. None for the picture's own size, enlarged where that is too small to draw on.
    """
    enlarged = max(1.0, min(_LEAST_SIDE / min(picture.size), _MOST_SIDE / max(picture.size)))
    factor = longest / max(picture.size) if longest else enlarged
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    canvas = picture.convert("RGB").resize(size, _BICUBIC)
    flat = [mark for its in marks.values() for mark in its]
    for mark in flat:
        if isinstance(mark, Mask):
            canvas = _with_mask(canvas, mark)
    _draw_shapes(canvas, [mark for mark in flat if _sure(mark, threshold)], factor)
    return canvas if longest else _with_panel(canvas, marks)


def _sure(mark: Mark, threshold: float) -> bool:
    return not isinstance(mark, Box | Point | Polyline) or mark.score is None or mark.score >= threshold


def caption(marks: Sequence[Mark], lines: int) -> str:
    """What marks say of a whole picture in so many lines at most, `-` if nothing; marks on it are counted."""
    said = [mark.text if isinstance(mark, Text) else f"{mark.name} {mark.value}" for mark in marks
            if isinstance(mark, Text | Bar)]  # fmt: skip
    if shapes := [mark for mark in marks if isinstance(mark, Box | Point | Polyline) and mark.colour is not None]:
        said.append("1 object" if len(shapes) == 1 else f"{len(shapes)} objects")
    shown = said if len(said) <= lines else [*said[: lines - 1], f"and {len(said) - lines + 1} more"]
    return "\n".join(shown) or "-"


def _with_mask(canvas: Image.Image, mark: Mask) -> Image.Image:
    """Regions in see-through colours, with a line around each."""
    values = np.asarray(mark.values.cpu().numpy())
    numbers = np.unique(values)
    known = [int(number) for number in numbers if int(number) in mark.names]
    index = np.zeros(values.shape, np.uint8)
    colours = np.zeros((len(known) + 1, 3), np.float32)
    for place, number in enumerate(known, start=1):
        index[values == number] = place
        colour: Colour = number if mark.colours is None else mark.colours.get(number, number)
        colours[place] = _rgb(_colour(colour))
    scaled = np.asarray(Image.fromarray(index).resize(canvas.size, _NEAREST))
    pixels = np.asarray(canvas, np.float32)
    opacity = np.where(scaled > 0, _OPACITY, 0.0)[..., None].astype(np.float32)
    edges = np.zeros(scaled.shape, bool)
    edges[:, 1:] |= scaled[:, 1:] != scaled[:, :-1]
    edges[1:] |= scaled[1:] != scaled[:-1]
    opacity[edges & (scaled > 0)] = 1.0
    blended = pixels * (1 - opacity) + colours[scaled] * opacity
    drawn = Image.fromarray(blended.round().astype(np.uint8))
    _name_regions(drawn, scaled, [mark.names[number] for number in known], colours[1:])
    return drawn


def _name_regions(canvas: Image.Image, index: np.ndarray, names: Sequence[str], colours: np.ndarray) -> None:
    """The name of each region that has room for it, about its middle."""
    draw, font = ImageDraw.Draw(canvas), font_of(text_size(canvas))
    for place, (name, colour) in enumerate(zip(names, colours, strict=True), start=1):
        rows, columns = np.nonzero(index == place)
        left, top, right, bottom = draw.textbbox((0, 0), name, font=font)
        width, height = right - left + 6, bottom - top + 6
        if len(rows) < 4 * width * height:
            continue
        # The pixel nearest to the mean lies in the region; the mean of a ring does not.
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        x = min(max(0.0, columns[nearest] - width / 2), canvas.width - width)
        y = min(max(0.0, rows[nearest] - height / 2), canvas.height - height)
        filled = "#" + "".join(f"{int(value):02x}" for value in colour)
        _write(draw, (x, y, x + width, y + height), name, filled, font)


def _draw_shapes(canvas: Image.Image, marks: Sequence[Mark], factor: float) -> None:
    """Lines, boxes and points, then their labels where they hide least."""
    draw, font = ImageDraw.Draw(canvas), font_of(text_size(canvas))
    line = max(2, round(min(canvas.size) / 220))
    halo = max(1, line // 2)
    tags: list[tuple[Rectangle, str, str]] = []
    shapes = [mark for mark in marks if isinstance(mark, Box | Point | Polyline)]
    # Large ones first, so that small ones are not covered.
    for mark in sorted(shapes, key=lambda mark: -_area(mark)):
        colour = _colour(mark.colour)
        x0, y0, x1, y1 = (value * factor for value in _around(mark))
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        if isinstance(mark, Box):
            # Pillow draws lines inwards: white on both sides of the coloured one.
            draw.rectangle((x0 - halo, y0 - halo, x1 + halo, y1 + halo), outline="white", width=line + 2 * halo)
            draw.rectangle((x0, y0, x1, y1), outline=colour, width=line)
        elif isinstance(mark, Polyline):
            points = [(x * factor, y * factor) for x, y in mark.points]
            points += points[:1] if mark.closed else []
            if len(points) > 1:
                draw.line(points, fill="white", width=line + 2 * halo, joint="curve")
                draw.line(points, fill=colour, width=line, joint="curve")
        else:
            x, y = (value * factor for value in mark.at)
            for radius, fill in ((2 * line + halo, "white"), (2 * line, colour)):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        if mark.text:
            tags.append(((x0, y0, x1, y1), mark.text, colour))
    taken: list[Rectangle] = []
    # Small boxes first: large ones have more places left for theirs.
    for box, text, colour in reversed(tags):
        others = [other for other, _, _ in tags if other is not box]
        if (place := _tag(draw, canvas.size, box, text, colour, font, taken, others)) is not None:
            taken.append(place)


def _around(mark: Box | Point | Polyline) -> Rectangle:
    """The rectangle around a mark."""
    if isinstance(mark, Box):
        return mark.corners
    points = [mark.at] if isinstance(mark, Point) else list(mark.points) or [(0.0, 0.0)]
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _area(mark: Box | Point | Polyline) -> float:
    x0, y0, x1, y1 = _around(mark)
    return max(0.0, x1 - x0) * max(0.0, y1 - y0)


def _with_panel(picture: Image.Image, marks: Mapping[str, Sequence[Mark]]) -> Image.Image:
    """Adds a panel below a picture with what is said of all of it, in a block for each who says so."""
    blocks = {title: rows for title, its in marks.items() if (rows := [m for m in its if isinstance(m, Text | Bar)])}
    if not blocks:
        return picture
    size = text_size(picture)
    font, pad = font_of(size), size // 2
    line = round(1.6 * size)
    height = sum(len(rows) + 1 for rows in blocks.values()) * line + (len(blocks) + 1) * pad
    width = max(picture.width, 16 * size)
    canvas = Image.new("RGB", (width, picture.height + height), "white")
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    y = picture.height + pad
    for title, rows in blocks.items():
        draw.text((pad, y), shorten(title, font, width - 2 * pad), fill=_GREY_INK, font=font)
        y += line
        for row in rows:
            _draw_row(draw, row, (pad, y, width - pad, y + line), font, size)
            y += line
        y += pad
    return canvas


def _draw_row(
    draw: ImageDraw.ImageDraw, row: Text | Bar, place: tuple[int, int, int, int], font: Font, size: int
) -> None:
    """A name at the left, its value at the right, and between them a bar."""
    x0, y0, x1, _ = place
    if isinstance(row, Text):
        draw.text((x0, y0), shorten(row.text, font, x1 - x0), fill=_INK, font=font)
        return
    middle = x0 + (x1 - x0) * 45 // 100
    draw.text((x0, y0), shorten(row.name, font, middle - x0 - size // 2), fill=_INK, font=font)
    right = x1 - round(font.getlength(row.value))
    draw.text((right, y0), row.value, fill=_INK, font=font)
    end = x1 - 5 * size
    if row.part is not None and end > middle:
        top, bottom = y0 + size // 4, y0 + size
        draw.rectangle((middle, top, end, bottom), fill=_TRACK)
        if row.part > 0:
            draw.rectangle((middle, top, middle + round((end - middle) * min(1.0, row.part)), bottom), fill=COLOURS[5])


def _tag(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Rectangle,
    text: str,
    colour: str,
    font: Font,
    taken: Sequence[Rectangle],
    others: Sequence[Rectangle],
) -> Rectangle | None:
    """Draws a label at a corner of its box, where it hides least of those before it and of other boxes.

    Returns:
        Its rectangle; None where it would hide another label: the box's colour has to do.
    """
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x0, y0, x1, y1 = box
    # Above, inside, below; at the left end, then at the right one.
    places = [(x, y) for x in (x0, x1 - width) for y in (y0 - height, y0, y1, y1 - height)]
    rectangles = [
        (x, y, x + width, y + height)
        for x, y in (
            (min(max(0.0, x), max(0.0, size[0] - width)), min(max(0.0, y), max(0.0, size[1] - height)))
            for x, y in places
        )
    ]
    if y0 < height:
        # No room above.
        rectangles = rectangles[1:]
    area = width * height

    def hidden(rectangle: Rectangle) -> float:
        labels = sum(_shared(rectangle, other) for other in taken) / area
        # Of a small box a label hides more than of a large one.
        boxes = sum(
            _shared(rectangle, other) / max(1.0, (other[2] - other[0]) * (other[3] - other[1])) for other in others
        )
        return 4 * labels + boxes

    rectangle = min(rectangles, key=hidden)
    if sum(_shared(rectangle, other) for other in taken) > _HIDDEN * area:
        return None
    _write(draw, rectangle, text, colour, font)
    return rectangle


def _write(draw: ImageDraw.ImageDraw, rectangle: Rectangle, text: str, colour: str, font: Font) -> None:
    """A text on a coloured rectangle, in ink that can be read on it."""
    left, top, _, _ = draw.textbbox((0, 0), text, font=font)
    draw.rectangle(rectangle, fill=colour)
    ink = _INK if np.dot(_rgb(colour), [0.299, 0.587, 0.114]) > 110 else "white"
    draw.text((rectangle[0] + 3 - left, rectangle[1] + 3 - top), text, fill=ink, font=font)


def _shared(a: Rectangle, b: Rectangle) -> float:
    """The area that two rectangles share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _colour(number: Colour) -> str:
    return _GREY if number is None else COLOURS[number % len(COLOURS)]


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return red, green, blue
