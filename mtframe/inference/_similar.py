"""Which of many pictures are most similar, without keeping all of them."""

# Shapes: R rows, D embedding dimensions.

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from mtframe.data import DecodeSize, read_image
from mtframe.drawing import similarity_sheet, to_pil

from ._pictures import Source

# Rows of the sheet: the first pictures, each beside those of all that are most similar to it.
_ROWS, _NEIGHBOURS = 12, 4

# Pixels of the shorter side of pictures on the sheet.
_SIDE = 400


class SimilarPictures:
    """The first of any number of pictures, with those most similar to each: all are compared, few are kept.

    Attributes:
        count: Pictures so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: dict[int, tuple[Source, Tensor]] = {}
        # Of each row the most similar so far: the similarity, and the picture's number, negative, so that of equal
        # ones the first is the greatest.
        self._nearest: list[list[tuple[float, int]]] = []

    def add(self, source: Source, embedding: Tensor) -> None:
        """The next picture, with its embedding (D,) of unit length."""
        number, rows = self.count, len(self._nearest)
        similarity_R = (
            torch.stack([self._kept[row][1] for row in range(rows)]) @ embedding if rows else torch.empty(0)
        ).tolist()
        for nearest, similarity in zip(self._nearest, similarity_R, strict=True):
            _keep(nearest, (similarity, -number))
        if number < _ROWS:
            self._nearest.append([])
            for other, similarity in enumerate(similarity_R):
                _keep(self._nearest[number], (similarity, -other))
        self._kept[number] = source, embedding
        self.count += 1
        shown = {*range(len(self._nearest)), *(-other for nearest in self._nearest for _, other in nearest)}
        self._kept = {number: kept for number, kept in self._kept.items() if number in shown}

    def sheet(self) -> Image.Image:
        """A row for each of the first pictures, of which there must be two.

        Raises:
            BadImageError: One of them cannot be read any more.
        """
        shown = [self._kept[number] for number in sorted(self._kept)]
        pictures = [to_pil(read_image(source.file, DecodeSize(shorter=_SIDE), upright=True)[0]) for source, _ in shown]
        return similarity_sheet(
            pictures, [source.name for source, _ in shown], torch.stack([embedding for _, embedding in shown]),
            neighbours=_NEIGHBOURS, rows=range(len(self._nearest)),
        )  # fmt: skip


def _keep(nearest: list[tuple[float, int]], found: tuple[float, int]) -> None:
    nearest.append(found)
    nearest.sort(reverse=True)
    del nearest[_NEIGHBOURS:]
