"""Pictures of predictions and targets, legible at any size."""

# Shapes: N boxes, Q pictures, R of them that get a row, D embedding dimensions, K neighbours.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mtframe.errors import MtframeError, RecipeError
from mtframe.palette import COLOURS

# A smaller picture is enlarged before it is drawn on, so that labels do not cover it.
_LEAST_SIDE = 480
# Not enlarged beyond this: a strip of a few pixels' height would become gigabytes.
_MOST_SIDE = 4 * _LEAST_SIDE
# Part of a label that may lie over others; beyond, it is left out.
_HIDDEN = 0.25
_INK = "#1A1A1A"
_GREY_INK = "#5A5A5A"
_BICUBIC = Image.Resampling.BICUBIC
_GREY = "#999999"


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a picture is taken for.

    Attributes:
        title: Who says so: a task's name.
        rows: (name, value as text, value as a part of a full bar or None) each, most likely first.
    """

    title: str
    rows: Sequence[tuple[str, str, float | None]]


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    # Pillow's own has little beyond ASCII; matplotlib brings one with Latin, Greek and Cyrillic letters.
    found = find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


def to_pil(image: Tensor) -> Image.Image:
    """A (3, H, W) uint8 RGB tensor as a Pillow image."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def draw_boxes(
    image: Image.Image,
    boxes: Tensor,
    labels: Sequence[str],
    colours: Sequence[int | None],
    *,
    longest: int | None = None,
) -> Image.Image:
    """Draws labelled boxes on a copy of a picture.

    Args:
        image: The picture.
        boxes: (N, 4) XYXY in its pixels.
        labels: N texts.
        colours: N numbers, e.g. class labels; equal numbers get one colour. None is grey.
        longest: Pixels of the longer side of what is returned, so that a sheet of tiles so large leaves lines
            and texts as they are; None for the picture's own size, enlarged where that is too small to draw on.

    Returns:
        The picture with boxes.
    """
    enlarged = max(1.0, min(_LEAST_SIDE / min(image.size), _MOST_SIDE / max(image.size)))
    factor = longest / max(image.size) if longest else enlarged
    size = [max(1, round(side * factor)) for side in image.size]
    canvas = image.convert("RGB").resize(size, _BICUBIC)
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(min(canvas.size) / 220))
    font = _font(_text_size(canvas))
    # Large boxes first, so that small ones are not covered.
    order = sorted(range(len(boxes)), key=lambda n: -float((boxes[n, 2:] - boxes[n, :2]).clamp(min=0).prod()))
    halo = max(1, line // 2)
    tags = []
    for n in order:
        x0, y0, x1, y1 = (float(value) * factor for value in boxes[n])
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        number = colours[n]
        colour = _GREY if number is None else COLOURS[number % len(COLOURS)]
        # Pillow draws lines inwards: white on both sides of the coloured one.
        draw.rectangle((x0 - halo, y0 - halo, x1 + halo, y1 + halo), outline="white", width=line + 2 * halo)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=line)
        tags.append(((x0, y0, x1, y1), labels[n], colour))
    taken: list[tuple[float, float, float, float]] = []
    # Small boxes first: large ones have more places left for theirs.
    for box, text, colour in reversed(tags):
        others = [other for other, _, _ in tags if other is not box]
        if (place := _tag(draw, canvas.size, box, text, colour, font, taken, others)) is not None:
            taken.append(place)
    return canvas


def draw_ranking(image: Image.Image, lists: Sequence[Ranking]) -> Image.Image:
    """Adds a panel below a picture: what it is taken for, most likely first, with bars.

    Args:
        image: The picture; enlarged where it is too small for text.
        lists: What is written, in blocks.
    """
    enlarged = max(1.0, min(_LEAST_SIDE / min(image.size), _MOST_SIDE / max(image.size)))
    picture = image.convert("RGB").resize([max(1, round(side * enlarged)) for side in image.size], _BICUBIC)
    size = _text_size(picture)
    font, pad = _font(size), size // 2
    line = round(1.6 * size)
    height = sum(len(ranking.rows) + 1 for ranking in lists) * line + (len(lists) + 1) * pad
    width = max(picture.width, 16 * size)
    canvas = Image.new("RGB", (width, picture.height + height), "white")
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    y = picture.height + pad
    for ranking in lists:
        draw.text((pad, y), _shorten(ranking.title, font, width - 2 * pad), fill=_GREY_INK, font=font)
        y += line
        for row in ranking.rows:
            _draw_row(draw, row, (pad, y, width - pad, y + line), font, size)
            y += line
        y += pad
    return canvas


def _draw_row(
    draw: ImageDraw.ImageDraw,
    row: tuple[str, str, float | None],
    place: tuple[int, int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: int,
) -> None:
    """A name at the left, its value at the right, and between them a bar."""
    text, value, part = row
    x0, y0, x1, _ = place
    middle = x0 + (x1 - x0) * 45 // 100
    draw.text((x0, y0), _shorten(text, font, middle - x0 - size // 2), fill=_INK, font=font)
    right = x1 - round(font.getlength(value))
    draw.text((right, y0), value, fill=_INK, font=font)
    end = x1 - 5 * size
    if part is not None and end > middle:
        top, bottom = y0 + size // 4, y0 + size
        draw.rectangle((middle, top, end, bottom), fill="#DDDDDD")
        if part > 0:
            draw.rectangle((middle, top, middle + round((end - middle) * min(1.0, part)), bottom), fill=COLOURS[5])


def _text_size(picture: Image.Image) -> int:
    """Pixels of a text that is legible on a picture whatever its size."""
    return max(13, round(min(picture.size) / 32))


def make_folder(path: Path) -> None:
    """Makes a folder for pictures. Raises RecipeError if it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"--out: {path} cannot be a folder ({error.strerror or error})") from None


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture file.

    Raises:
        RecipeError: Its suffix is not that of a picture, or its folder cannot be made.
        MtframeError: It cannot be written.
    """
    make_folder(path.parent)
    try:
        picture.save(path)
    except ValueError:
        raise RecipeError(f"--out: {path} has no suffix of a picture file; expected one such as .png") from None
    except OSError as error:
        raise MtframeError(f"{path} could not be written ({error.strerror or error})") from error


def nearest(embeddings: Tensor, rows: Sequence[int], neighbours: int) -> tuple[Tensor, Tensor]:
    """The pictures most similar to each of some: cosine similarities (R, K), falling, and their numbers (R, K).

    Args:
        embeddings: (Q, D), of unit length.
        rows: Numbers of the R pictures.
        neighbours: K, unless there are fewer others.
    """
    chosen = torch.tensor(list(rows))
    similarity_RQ = embeddings[chosen] @ embeddings.T
    similarity_RQ[torch.arange(len(chosen)), chosen] = -torch.inf
    return similarity_RQ.topk(min(neighbours, len(embeddings) - 1), dim=1)


def similarity_sheet(
    images: Sequence[Image.Image],
    names: Sequence[str],
    embeddings: Tensor,
    *,
    neighbours: int = 4,
    rows: Sequence[int] | None = None,
) -> Image.Image:
    """A row a picture: the picture, then those most similar to it with their cosine similarity.

    Args:
        images: Q pictures, at least two.
        names: Q short names.
        embeddings: (Q, D), of unit length.
        neighbours: Pictures shown beside each.
        rows: Numbers of the pictures that get a row; all if None.
    """
    rows = range(len(images)) if rows is None else rows
    tiles: list[Image.Image] = []
    captions: list[str] = []
    tints: list[float | None] = []
    values, order = nearest(embeddings, rows, neighbours)
    for row, similarities, columns in zip(rows, values.tolist(), order.tolist(), strict=True):
        tiles.append(images[row])
        captions.append(names[row])
        tints.append(None)
        for value, column in zip(similarities, columns, strict=True):
            tiles.append(images[column])
            captions.append(f"{value:.2f}  {names[column]}")
            tints.append(value)
    return contact_sheet(tiles, captions, columns=values.shape[1] + 1, similarities=tints)


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int,
    tile: int = 200,
    similarities: Sequence[float | None] | None = None,
) -> Image.Image:
    """Pictures in a grid, each with a caption below.

    Args:
        images: The pictures.
        captions: One each; may have several lines.
        columns: Pictures in a row.
        tile: Side of the square that each is fitted into, in pixels.
        similarities: Drawn as a bar below a picture, its length the cosine similarity (negative: none).
    """
    gap, spacing = 8, 17
    line = 3 + spacing * max((caption.count("\n") + 1 for caption in captions), default=1)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, rows * (tile + line + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = _font(13)
    for number, image in enumerate(images):
        x = gap + number % columns * (tile + gap)
        y = gap + number // columns * (tile + line + gap)
        fitted = image.convert("RGB")
        factor = tile / max(fitted.size)
        fitted = fitted.resize([max(1, round(side * factor)) for side in fitted.size], _BICUBIC)
        sheet.paste(fitted, (x + (tile - fitted.width) // 2, y + (tile - fitted.height) // 2))
        for place, caption in enumerate(captions[number].split("\n")):
            draw.text((x, y + tile + 3 + place * spacing), _shorten(caption, font, tile), fill=_INK, font=font)
        similarity = similarities[number] if similarities else None
        if similarity is not None:
            draw.rectangle((x, y + tile - 5, x + tile, y + tile), fill="#DDDDDD")
            draw.rectangle((x, y + tile - 5, x + tile * max(0.0, similarity), y + tile), fill=COLOURS[5])
    return sheet


def _tag(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    text: str,
    colour: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    taken: Sequence[tuple[float, float, float, float]],
    others: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
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

    def hidden(rectangle: tuple[float, float, float, float]) -> float:
        labels = sum(_shared(rectangle, other) for other in taken) / area
        # Of a small box a label hides more than of a large one.
        boxes = sum(
            _shared(rectangle, other) / max(1.0, (other[2] - other[0]) * (other[3] - other[1])) for other in others
        )
        return 4 * labels + boxes

    rectangle = min(rectangles, key=hidden)
    if sum(_shared(rectangle, other) for other in taken) > _HIDDEN * area:
        return None
    x, y = rectangle[:2]
    draw.rectangle(rectangle, fill=colour)
    bright = np.dot([int(colour[n : n + 2], 16) for n in (1, 3, 5)], [0.299, 0.587, 0.114]) > 110
    draw.text((x + 3 - left, y + 3 - top), text, fill=_INK if bright else "white", font=font)
    return rectangle


def _shared(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """The area that two rectangles share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _shorten(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
