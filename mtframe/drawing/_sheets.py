"""Sheets of many pictures, each with a caption; pictures beside those that are most similar to them."""

# Shapes: Q pictures, R of them that get a row, D embedding dimensions, K neighbours.

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mtframe.errors import one_line
from mtframe.palette import COLOURS

from ._panel import INK, TRACK
from ._text import draw_text, font_of, shorten

_BICUBIC = Image.Resampling.BICUBIC


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
    """A row for each picture: the picture, then those most similar to it with their cosine similarity.

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
        captions.append(one_line(names[row]))
        tints.append(None)
        for value, column in zip(similarities, columns, strict=True):
            tiles.append(images[column])
            captions.append(f"{value:.2f}  {one_line(names[column])}")
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
    font = font_of(13)
    for number, image in enumerate(images):
        x = gap + number % columns * (tile + gap)
        y = gap + number // columns * (tile + line + gap)
        fitted = image.convert("RGB")
        factor = tile / max(fitted.size)
        fitted = fitted.resize([max(1, round(side * factor)) for side in fitted.size], _BICUBIC)
        sheet.paste(fitted, (x + (tile - fitted.width) // 2, y + (tile - fitted.height) // 2))
        for place, caption in enumerate(captions[number].split("\n")):
            draw_text(draw, (x, y + tile + 3 + place * spacing), shorten(caption, font, tile), INK, font)
        similarity = similarities[number] if similarities else None
        if similarity is not None:
            draw.rectangle((x, y + tile - 5, x + tile, y + tile), fill=TRACK)
            draw.rectangle((x, y + tile - 5, x + tile * max(0.0, similarity), y + tile), fill=COLOURS[5])
    return sheet
