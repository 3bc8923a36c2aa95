"""Where an original image lies in an input of the network, and moving coordinates and maps between the two."""

# Shapes: N points or boxes, C channels, H height, W width of the original, h and w of the input.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Row = tuple[float, float, float]
Matrix = tuple[Row, Row]
Window = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one original image lies in one input of the network, and what of it is seen there.

    An affine map: `x' = a x + b y + c` and `y' = d x + e y + f`, from pixels of the original to pixels of the input,
    for `matrix` `((a, b, c), (d, e, f))`. A pixel's centre is at a half: the first is at (0.5, 0.5).

    Attributes:
        matrix: The map.
        size: (height, width) of the original in pixels.
        input_size: (height, width) of the input in pixels.
        sample: Which of the samples that a transform was given.
        window: The part of the input where the image may be seen, XYXY in pixels; all of it if None.
        share: How much of what is seen in the window is this image's: 1 where it covers what lies below, less where
            images are blended.
        min_visible: Part of a thing that must be in the window for it to count; of a thing of which less is seen
            nothing is known. None where everything counts, as in evaluation.
    """

    matrix: Matrix
    size: tuple[int, int]
    input_size: tuple[int, int]
    sample: int = 0
    window: Window | None = None
    share: float = 1.0
    min_visible: float | None = None

    @classmethod
    def scaled(
        cls,
        size: tuple[int, int],
        input_size: tuple[int, int],
        scale: tuple[float, float],
        offset: tuple[float, float] = (0.0, 0.0),
        *,
        sample: int = 0,
    ) -> Placement:
        """Not rotated: `input = original * scale + offset`, (x, y) each; a mirrored image has a negative x scale."""
        return cls(((scale[0], 0.0, offset[0]), (0.0, scale[1], offset[1])), size, input_size, sample)

    @classmethod
    def by_inverse(
        cls, inverse: np.ndarray, size: tuple[int, int], input_size: tuple[int, int], *, sample: int = 0
    ) -> Placement:
        """From what a resampling is given: the (2, 3) map from pixels of the input to pixels of the original."""
        forward = np.linalg.inv(np.vstack([inverse, [0.0, 0.0, 1.0]]))[:2]
        (a, b, c), (d, e, f) = forward.tolist()
        return cls(((a, b, c), (d, e, f)), size, input_size, sample)

    @property
    def seen(self) -> Window:
        """The part of the input where the image may be seen, XYXY in pixels."""
        height, width = self.input_size
        return self.window or (0.0, 0.0, float(width), float(height))

    @property
    def seen_pixels(self) -> tuple[slice, slice]:
        """The rows and the columns of the input whose pixels' centres lie where the image may be seen."""
        height, width = self.input_size
        x1, y1, x2, y2 = (math.ceil(edge - 0.5) for edge in self.seen)
        # None of a window beyond the input, not less than none.
        top, left = min(max(0, y1), height), min(max(0, x1), width)
        return slice(top, max(top, min(height, y2))), slice(left, max(left, min(width, x2)))

    @property
    def turned(self) -> bool:
        """Whether the map is more than a scale and an offset."""
        (_, b, _), (d, _, _) = self.matrix
        return b != 0 or d != 0

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged."""
        (a, b, _), (d, e, _) = self.matrix
        return a * e - b * d < 0

    @property
    def scale(self) -> float:
        """The factor by which lengths change, as the geometric mean of both axes."""
        (a, b, _), (d, e, _) = self.matrix
        return math.sqrt(abs(a * e - b * d))

    @property
    def bounds(self) -> Window:
        """The rectangle around the whole original, XYXY in pixels of the input; it may reach beyond it."""
        height, width = self.size
        x1, y1, x2, y2 = self.boxes(torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64))[0].tolist()
        return x1, y1, x2, y2

    def points(self, points: Tensor) -> Tensor:
        """(..., 2) x and y in the original to the input; they may lie outside of it."""
        return _mapped(self.matrix, points)

    def boxes(self, boxes: Tensor) -> Tensor:
        """(N, 4) XYXY in the original to the rectangles around them in the input, not clipped."""
        return _hulls(self.matrix, boxes)

    def restored_points(self, points: Tensor) -> Tensor:
        """(..., 2) x and y in the input to the original; they may lie outside of it.

        Points of a mirrored image come out where they are: what was to the left in the original is so again. Whoever
        tells left from right by a name has to exchange the names (`mirrored`).
        """
        if not self.turned:
            (a, _, c), (_, e, f) = self.matrix
            # Not by the inverse map, which would round once more.
            return (points - points.new_tensor([c, f])) / points.new_tensor([a, e])
        return _mapped(self._inverse(), points)

    def restored_boxes(self, boxes: Tensor) -> Tensor:
        """(N, 4) XYXY in the input to the rectangles around them in the original, clipped to it."""
        corners = boxes.unflatten(-1, (2, 2)) if not self.turned else _corners(boxes)
        restored = self.restored_points(corners)
        height, width = self.size
        limit = boxes.new_tensor([width, height, width, height])
        return torch.cat([restored.amin(-2), restored.amax(-2)], dim=-1).clamp(min=0).minimum(limit)

    def placed_map(self, values: Tensor, fill: float) -> Tensor:
        """A map of the original's pixels, such as a mask of class numbers, as it is seen in the input.

        Args:
            values: (H, W), of any dtype; each pixel of the input takes the nearest one.
            fill: The value where nothing of the image is seen.

        Returns:
            (h, w), of the same dtype.
        """
        height, width = self.size
        rows, columns = self.seen_pixels
        placed = torch.full(self.input_size, fill, dtype=values.dtype)
        window = placed[rows, columns]
        ys, xs = _centres(rows), _centres(columns)
        if self.turned:
            grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
            x, y = self.restored_points(grid).floor().long().unbind(-1)
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            window[inside] = values[y[inside], x[inside]]
            return placed
        # Rows and columns by themselves: no grid of coordinates, which takes ten times as long.
        (a, _, c), (_, e, f) = self.matrix
        x, y = ((xs - c) / a).floor().long(), ((ys - f) / e).floor().long()
        inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
        window[_run(inside_y), _run(inside_x)] = values[y[inside_y]][:, x[inside_x]]
        return placed

    def restored_map(self, values: Tensor, rows: slice = slice(None)) -> Tensor:
        """A map of the input, such as scores of classes, for each pixel of the original, bilinear.

        Args:
            values: (C, h', w') float, of any resolution: it covers the whole input.
            rows: Which rows of the original. Scores of many classes on a large photograph take gigabytes: whoever
                needs only the best of them asks for some rows at a time.

        Returns:
            (C, H, W), or those rows of it. Where the input does not show the original, the nearest place that it
            shows.
        """
        ys, xs = _centres(slice(*rows.indices(self.size[0]))), _centres(slice(0, self.size[1]))
        if self.turned:
            grid = self.points(torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1))
            extent = torch.tensor([self.input_size[1], self.input_size[0]])
            normalised = (grid / extent * 2 - 1).to(values)
            return F.grid_sample(values[None], normalised[None], padding_mode="border", align_corners=False)[0]
        # Columns, then rows, of all C values at once. These lie side by side in memory: what is made of them, such as
        # their largest, takes a tenth of the time.
        (a, _, c), (_, e, f) = self.matrix
        left, right, x_part = _between((a * xs + c) * values.shape[2] / self.input_size[1], values.shape[2])
        above, below, y_part = _between((e * ys + f) * values.shape[1] / self.input_size[0], values.shape[1])
        first, last = (int(place) for place in (above.min(), below.max()))
        cells = values[:, first : last + 1].permute(1, 2, 0).contiguous()
        wide = torch.lerp(cells[:, left], cells[:, right], x_part.to(values)[:, None])
        tall = torch.lerp(wide[above - first], wide[below - first], y_part.to(values)[:, None, None])
        return tall.permute(2, 0, 1)

    def flipped(self) -> Placement:
        """The placement in the mirror image of the input."""
        width = self.input_size[1]
        (a, b, c), below = self.matrix
        window = self.window and (width - self.window[2], self.window[1], width - self.window[0], self.window[3])
        return replace(self, matrix=((-a, -b, width - c), below), window=window)

    def resized(self, input_size: tuple[int, int]) -> Placement:
        """The placement in the input at another (height, width)."""
        y, x = (new / old for new, old in zip(input_size, self.input_size, strict=True))
        (a, b, c), (d, e, f) = self.matrix
        matrix = ((a * x, b * x, c * x), (d * y, e * y, f * y))
        window = self.window and (self.window[0] * x, self.window[1] * y, self.window[2] * x, self.window[3] * y)
        return replace(self, matrix=matrix, window=window, input_size=input_size)

    def _inverse(self) -> Matrix:
        (a, b, c), (d, e, f) = self.matrix
        det = a * e - b * d
        return (e / det, -b / det, (b * f - c * e) / det), (-d / det, a / det, (c * d - a * f) / det)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a transform makes of samples: inputs of the network, and where in them the samples' images are.

    Attributes:
        images: (B, 3, h, w) uint8, RGB.
        placements: For each input, of which images it is made: its own sample's first, then those drawn over it.
    """

    images: Tensor
    placements: Sequence[tuple[Placement, ...]]


def covers(placements: Sequence[Placement]) -> list[list[Window]]:
    """For each image, the windows of those that are drawn over it and let nothing of it through.

    What an image would show there is not seen. Blended ones (`share` below 1) cover nothing.
    """
    return [[above.seen for above in placements[place + 1 :] if above.share >= 1] for place in range(len(placements))]


def shares(placements: Sequence[Placement]) -> list[float]:
    """How much of an input each image makes up, adding up to 1 or, where nothing is drawn, to less.

    Each covers its window, in part if it is blended, and what lies below it there. Of windows above others no two may
    overlap.
    """
    found = []
    for place, placement in enumerate(placements):
        own = _area(placement.seen)
        hidden = sum(above.share * _area(_overlap(above.seen, placement.seen)) for above in placements[place + 1 :])
        found.append(placement.share * (own - hidden) / math.prod(placement.input_size))
    return found


def _mapped(matrix: Matrix, points: Tensor) -> Tensor:
    (a, b, c), (d, e, f) = matrix
    offset = points.new_tensor([c, f])
    if b == 0 and d == 0:
        return points * points.new_tensor([a, e]) + offset
    return points @ points.new_tensor([[a, d], [b, e]]) + offset


def _centres(pixels: slice) -> Tensor:
    """Where the centres of a run of pixels are, in double: a place on an edge must not fall on its other side."""
    return torch.arange(pixels.start, pixels.stop, dtype=torch.float64) + 0.5


def _run(inside: Tensor) -> slice:
    """From the first to the last of those that are inside, which are in one run."""
    places = inside.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0)


def _between(places: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells around places on an axis of `cells`: those before, those after, and how near the latter are, 0..1."""
    within = (places - 0.5).clamp(0, cells - 1)
    before = within.floor()
    return before.long(), (before + 1).clamp(max=cells - 1).long(), within - before


def _corners(boxes: Tensor) -> Tensor:
    """(N, 4, 2) x and y of all four corners of (N, 4) boxes."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(-1, (4, 2))


def _hulls(matrix: Matrix, boxes: Tensor) -> Tensor:
    corners = _mapped(matrix, _corners(boxes))
    return torch.cat([corners.amin(-2), corners.amax(-2)], dim=-1)


def _area(window: Window) -> float:
    return max(0.0, window[2] - window[0]) * max(0.0, window[3] - window[1])


def _overlap(one: Window, other: Window) -> Window:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
