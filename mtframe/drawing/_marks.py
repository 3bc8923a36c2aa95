"""Marks on a picture: masks and lines, boxes and points with labels that keep apart, and a panel below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from mtframe.errors import one_line
from mtframe.marks import Bar, Box, Mark, Mask, Point, Polyline, Text

from ._panel import INK, Row, add_panel, panel_size
from ._regions import Rectangle, Region, hex_of, name_place, paint_mask, region_names, rgb_of
from ._text import Font, draw_text, extent_of, font_of, text_size

# A smaller picture is enlarged before it is drawn on, so that labels do not cover it.
_LEAST_SIDE = 480
# Not enlarged beyond this: a strip of a few pixels' height would become gigabytes.
_MOST_SIDE = 4 * _LEAST_SIDE
# Part of a label that may lie over others; beyond, it is left out.
_HIDDEN = 0.25
_BICUBIC = Image.Resampling.BICUBIC


def draw_marks(
    picture: Image.Image,
    marks: Mapping[str, Sequence[Mark]],
    *,
    threshold: float = 0.0,
    longest: int | None = None,
    drawn: tuple[int, int] | None = None,
) -> Image.Image:
    """A copy of a picture with marks on it, and below it a panel with what is said of the whole picture.

    Args:
        picture: The picture.
        marks: By who says so, such as a task; in pixels of the picture.
        threshold: Marks with a lower score are left out.
        longest: Pixels of the longer side of what is returned, without a panel: for sheets of tiles of that size, whose
            captions say the rest. None for the picture's own size, enlarged where that is too small to draw on.
        drawn: (width, height) of what is returned, as of `size_drawn`: for films, whose frames are of one size. What
            the panel has no room for is left out.
    """
    factor = longest / max(picture.size) if longest else _enlarged(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    canvas = picture.convert("RGB").resize(size, _BICUBIC)
    said: dict[str, list[Row]] = {title: [m for m in its if isinstance(m, Text | Bar)] for title, its in marks.items()}
    regions = list[Region]()
    for title, its in marks.items():
        for mark in its:
            if isinstance(mark, Mask):
                # Two colours over each other cannot be told apart: further masks are outlined.
                canvas, found = paint_mask(canvas, mark, line=_line_width(canvas), filled=not regions)
                regions += found
                said[title].append(found)
    taken = _draw_shapes(canvas, [mark for its in marks.values() for mark in its if _sure(mark, threshold)], factor)
    _name_regions(canvas, regions, taken)
    if longest:
        return canvas
    if drawn is None:
        return add_panel(canvas, said)
    whole = add_panel(canvas, said, max(0, drawn[1] - canvas.height))
    # A film may go on in another size than it began.
    return whole if whole.size == drawn else whole.resize(drawn, _BICUBIC)


def size_drawn(size: tuple[int, int], marks: Mapping[str, Sequence[Mark]]) -> tuple[int, int]:
    """(width, height) of a film whose frames are drawn: with a panel that has room for what other frames may say.

    Args:
        size: (width, height) of a frame.
        marks: What is said of one of them. Texts and bars of others have as many lines; of masks any of the names may
            be listed, in a few lines.
    """
    canvas = Image.new("RGB", tuple(max(1, round(side * _enlarged(size))) for side in size))  # type: ignore[arg-type]
    said: dict[str, list[Row]] = {title: [m for m in its if isinstance(m, Text | Bar)] for title, its in marks.items()}
    legends = {title: [list(m.names.values()) for m in its if isinstance(m, Mask)] for title, its in marks.items()}
    width, height = panel_size(canvas, said, legends)
    return width, canvas.height + height


def _enlarged(size: tuple[int, int]) -> float:
    """How much larger a picture is drawn than it is."""
    return max(1.0, min(_LEAST_SIDE / min(size), _MOST_SIDE / max(size)))


def _sure(mark: Mark, threshold: float) -> bool:
    return not isinstance(mark, Box | Point | Polyline) or mark.score is None or mark.score >= threshold


def caption(marks: Sequence[Mark], lines: int) -> str:
    """What marks say of a whole picture, `-` if nothing: regions by name, the largest first, other shapes by number.

    Args:
        marks: Of one picture.
        lines: How many lines there may be.
    """
    said = [mark.text if isinstance(mark, Text) else f"{mark.name} {mark.value}" for mark in marks
            if isinstance(mark, Text | Bar)]  # fmt: skip
    said += [", ".join(names) for mark in marks if isinstance(mark, Mask) and (names := region_names(mark))]
    if shapes := [mark for mark in marks if isinstance(mark, Box | Point | Polyline) and mark.colour is not None]:
        said.append("1 object" if len(shapes) == 1 else f"{len(shapes)} objects")
    said = [*map(one_line, said)]
    shown = said if len(said) <= lines else [*said[: lines - 1], f"and {len(said) - lines + 1} more"]
    return "\n".join(shown) or "-"


def _line_width(canvas: Image.Image) -> int:
    return max(2, round(min(canvas.size) / 220))


def _name_regions(canvas: Image.Image, regions: Sequence[Region], taken: Sequence[Rectangle]) -> None:
    """The names of regions that have room for them, once each; the panel lists all."""
    draw, font = ImageDraw.Draw(canvas), font_of(text_size(canvas))
    places = list(taken)
    for region in regions:
        left, top, right, bottom = extent_of(draw, region.name, font)
        place = name_place(region, canvas.size, (right - left + 6, bottom - top + 6), places)
        if place is not None:
            _write(draw, place, region.name, region.colour, font)
            places.append(place)


def _draw_shapes(canvas: Image.Image, marks: Sequence[Mark], factor: float) -> list[Rectangle]:
    """Lines, boxes and points, then their labels where they hide least; returns where the labels are."""
    draw, font, line = ImageDraw.Draw(canvas), font_of(text_size(canvas)), _line_width(canvas)
    tags: list[tuple[Rectangle, str, str]] = []
    shapes = [
        mark for mark in marks
        if isinstance(mark, Box | Point) or (isinstance(mark, Polyline) and len(mark.points) > 0)
    ]  # fmt: skip
    # Large ones first, so that small ones are not covered.
    for mark in sorted(shapes, key=lambda mark: -_area(mark)):
        place = _draw_shape(draw, mark, factor, line)
        if mark.text:
            tags.append((place, mark.text, hex_of(mark.colour)))
    taken: list[Rectangle] = []
    # Small boxes first: large ones have more places left for theirs.
    for box, text, colour in reversed(tags):
        others = [other for other, _, _ in tags if other is not box]
        if (label := _tag(draw, canvas.size, box, text, colour, font, taken, others)) is not None:
            taken.append(label)
    return taken


def _draw_shape(draw: ImageDraw.ImageDraw, mark: Box | Point | Polyline, factor: float, line: int) -> Rectangle:
    """Draws a shape with white around its lines; returns the rectangle that its label belongs to."""
    colour, halo = hex_of(mark.colour), max(1, line // 2)
    x0, y0, x1, y1 = (value * factor for value in _around(mark))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    if isinstance(mark, Box):
        # Pillow draws lines inwards: white on both sides of the coloured one.
        draw.rectangle((x0 - halo, y0 - halo, x1 + halo, y1 + halo), outline="white", width=line + 2 * halo)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=line)
    elif isinstance(mark, Point):
        x, y = (value * factor for value in mark.at)
        for radius, fill in ((2 * line + halo, "white"), (2 * line, colour)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        points = [(x * factor, y * factor) for x, y in mark.points]
        points += points[:1] if mark.closed else []
        if len(points) > 1:
            draw.line(points, fill="white", width=line + 2 * halo, joint="curve")
            draw.line(points, fill=colour, width=line, joint="curve")
        # At its topmost point: the rectangle around what is slanting is mostly elsewhere.
        x, y = min(points, key=lambda point: point[1], default=(x0, y0))
        return x, y, x, y
    return x0, y0, x1, y1


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
    left, top, right, bottom = extent_of(draw, text, font)
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
    left, top, _, _ = extent_of(draw, text, font)
    # On whole pixels: Pillow cuts off the upper edge of letters between them.
    x0, y0, x1, y1 = map(round, rectangle)
    draw.rectangle((x0, y0, x1, y1), fill=colour)
    ink = INK if np.dot(rgb_of(colour), [0.299, 0.587, 0.114]) > 110 else "white"
    draw_text(draw, (x0 + 3 - left, y0 + 3 - top), text, ink, font)


def _shared(a: Rectangle, b: Rectangle) -> float:
    """The area that two rectangles share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
