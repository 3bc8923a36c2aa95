"""Regions of a mask on a picture: painted see-through, named where there is room, and listed."""

# Shapes: H height, W width of the canvas, h and w of the grid that names are placed on.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtframe.marks import Colour, Mask
from mtframe.palette import colour_of

# Of 255; the picture has to be seen through it.
_OPACITY = 128
# Cells of the longer side of the grid that names are placed on.
_CELLS = 160
# Part of a name that must lie on its region; and that is enough, if it brings it nearer to the region's middle.
_ROOM, _ENOUGH = 0.75, 0.95

_GREY = "#999999"

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Region:
    """All pixels of one number.

    Attributes:
        name: Of the region.
        colour: It is painted in.
        where: (h, w) bool, on a grid over the canvas.
        share: Its part of the picture.
    """

    name: str
    colour: str
    where: NDArray[np.bool_]
    share: float


def hex_of(colour: Colour) -> str:
    """A mark's colour, `#RRGGBB`."""
    return _GREY if colour is None else colour_of(colour)


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of `#RRGGBB`."""
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return red, green, blue


def paint_mask(canvas: Image.Image, mark: Mask, *, line: int, filled: bool) -> tuple[Image.Image, list[Region]]:
    """The canvas with regions on it, and these, the largest first.

    Args:
        canvas: The picture.
        mark: The regions.
        line: Pixels of a line on this canvas.
        filled: Whether regions are painted in see-through colours, with a thin line around each; else there is only a
            line.
    """
    values = mark.values.cpu().numpy()
    numbers = [int(number) for number in np.unique(values) if int(number) in mark.names]
    colours = [hex_of(number if mark.colours is None else mark.colours.get(number, number)) for number in numbers]
    # Places in the list from 1 on; 0 stays as it is.
    index = np.zeros(values.shape, np.uint16)
    for place, number in enumerate(numbers, start=1):
        index[values == number] = place
    shares = np.bincount(index.ravel(), minlength=len(numbers) + 1) / index.size
    scaled = _resized(index, canvas.height, canvas.width)
    paints = np.array([(0, 0, 0), *map(rgb_of, colours)], np.uint8)[scaled]
    opacity = np.where(scaled > 0, np.uint8(_OPACITY if filled else 0), np.uint8(0))
    edges = np.zeros(scaled.shape, bool)
    line = max(1, line // 2) if filled else line
    edges[:, line:] |= scaled[:, line:] != scaled[:, :-line]
    edges[line:] |= scaled[line:] != scaled[:-line]
    opacity[edges & (scaled > 0)] = 255
    drawn = Image.composite(Image.fromarray(paints), canvas, Image.fromarray(opacity))
    factor = _CELLS / max(canvas.size)
    grid = _resized(index, max(1, round(canvas.height * factor)), max(1, round(canvas.width * factor)))
    regions = [
        Region(mark.names[number], colours[place - 1], grid == place, float(shares[place]))
        for place, number in enumerate(numbers, start=1)
    ]
    return drawn, sorted(regions, key=lambda region: -region.share)


def name_place(
    region: Region, size: tuple[int, int], name: tuple[float, float], taken: Sequence[Rectangle]
) -> Rectangle | None:
    """Where a name lies on its region and on no other name, near the region's middle; None where there is no room.

    Args:
        region: The region.
        size: Width and height of the canvas.
        name: Width and height of the name.
        taken: Where other names are.
    """
    rows, columns = region.where.shape
    x_cell, y_cell = size[0] / columns, size[1] / rows
    width, height = (max(1, round(side / cell)) for side, cell in zip(name, (x_cell, y_cell), strict=True))
    if width > columns or height > rows:
        return None
    full = np.zeros_like(region.where)
    for x0, y0, x1, y1 in taken:
        full[max(0, int(y0 / y_cell)) : int(y1 / y_cell) + 1, max(0, int(x0 / x_cell)) : int(x1 / x_cell) + 1] = True
    room = _sums(region.where, height, width)
    room[_sums(full, height, width) > 0] = 0
    if room.max() < _ROOM * width * height:
        return None
    middle = [float(places.mean()) for places in np.nonzero(region.where)]
    ys, xs = np.nonzero(room >= min(room.max(), round(_ENOUGH * width * height)))
    best = np.argmin((ys + height / 2 - middle[0]) ** 2 + (xs + width / 2 - middle[1]) ** 2)
    left = min(float(xs[best]) * x_cell, size[0] - name[0])
    top = min(float(ys[best]) * y_cell, size[1] - name[1])
    return left, top, left + name[0], top + name[1]


def _sums(cells: NDArray[np.bool_], height: int, width: int) -> NDArray[np.int32]:
    """How many cells are set in each rectangle of that size, by its upper left corner."""
    sums = np.pad(cells.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]


def region_names(mark: Mask) -> list[str]:
    """The names of a mask's regions, the largest first."""
    numbers, counts = np.unique(mark.values.cpu().numpy(), return_counts=True)
    return [mark.names[int(number)] for number in numbers[np.argsort(-counts)] if int(number) in mark.names]


def _resized(index: NDArray[np.uint16], rows: int, columns: int) -> NDArray[np.uint16]:
    """The nearest place of each pixel of another size."""
    y = (np.arange(rows) + 0.5) * index.shape[0] / rows
    x = (np.arange(columns) + 0.5) * index.shape[1] / columns
    return index[y.astype(np.intp)[:, None], x.astype(np.intp)]
