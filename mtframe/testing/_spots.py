"""Images of one bright spot on a dark ground, and whether inputs show it where placements say."""

# Shapes: H and W of an image, h and w of an input.

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mtframe.data import Inputs, Placement, Sample

from ._violation import Violation

_DARK, _BRIGHT = 25, 250

# Pixels of the input that a spot may be away from where it should be: images are resized to whole pixels.
_PIXELS = 2.0

# Pixels of the decoded image that a spot may be off in addition, where images are resized by nearest pixels.
_DECODED = 0.75

# Radius of a spot in pixels of the input, and at least in pixels of the decoded image.
_RADIUS, _LEAST = 5.0, 1.5

# What differs from the ground by less is noise, or a spot that blending has made faint.
_CONTRAST = 60.0

# Pixels along the border of an image or a window that are not compared: resampling mixes them with what is beyond.
_BORDER = 2.0

# Where a spot takes up more of what is seen, ground and spot cannot be told apart.
_MOST = 0.25


@dataclass(frozen=True, slots=True)
class Spot:
    """A sample whose image is a bright spot on a dark ground.

    Attributes:
        sample: With the target of a real one.
        at: x and y of its middle, in pixels of the original.
        radius: In the same.
    """

    sample: Sample
    at: tuple[float, float]
    radius: float


def spot_on(sample: Sample, placement: Placement, place: tuple[float, float], *, halved: bool = False) -> Spot:
    """A spot that comes to lie at a place of the input, if it is made as in this placement.

    Args:
        sample: Whose image is replaced.
        placement: Where the image lies in an input.
        place: x and y, as parts of the input's sides.
        halved: Whether the image is as if it had been decoded at half its size.
    """
    height, width = sample.size
    rows, columns = (math.ceil(side / 2) if halved else side for side in sample.image.shape[-2:])
    goal = torch.tensor([[place[0] * placement.input_size[1], place[1] * placement.input_size[0]]], dtype=torch.float64)
    x, y = placement.restored_points(goal)[0].tolist()
    # Within the image, whatever is cropped.
    at = min(max(x, 0.1 * width), 0.9 * width), min(max(y, 0.1 * height), 0.9 * height)
    pixel = max(height / rows, width / columns)
    radius = max(_RADIUS / placement.scale, _LEAST * pixel)
    distance = (_centres(rows, columns, height / rows, width / columns) - torch.tensor(at)).norm(dim=-1)
    covered = ((radius - distance) / pixel + 0.5).clamp(0, 1)
    image = (_DARK + (_BRIGHT - _DARK) * covered).to(torch.uint8).expand(3, -1, -1).contiguous()
    return Spot(replace(sample, image=image), at, radius)


def seen_where_placed(inputs: Inputs, spots: Sequence[Spot]) -> Iterator[bool]:
    """Of each spot that placements say is in view, whether it is seen there.

    Raises:
        Violation: Something bright is seen where no spot should be.
    """
    for number, (image, placements) in enumerate(zip(inputs.images, inputs.placements, strict=True)):
        seen = image.float().mean(0)
        for shown in _views(placements, spots):
            yield from shown.compare(number, seen)


@dataclass
class _View:
    """Part of an input: what one image, and those that are blended with it, show there.

    Attributes:
        region: (h, w) bool: the pixels that are compared.
        spots: (h, w) bool for each of the images: where its spot may be seen.
        middle: x and y of the first one's spot in the input, where it should be in view.
    """

    region: Tensor
    spots: list[Tensor]
    middle: tuple[float, float] | None

    def compare(self, number: int, seen: Tensor) -> Iterator[bool]:
        """Whether the spot is seen, if it should be. Raises Violation if something else is."""
        allowed = torch.stack(self.spots).any(0)
        if not self.region.any() or allowed[self.region].float().mean() > _MOST:
            return
        # Whatever colours become, most of what is seen is ground.
        apart = (seen - seen[self.region].median()).abs() * self.region
        bright = apart > max(_CONTRAST, float(apart.max())) / 2
        strange = bright & ~allowed
        if strange.any():
            y, x = (float(place.float().mean()) for place in bright.nonzero(as_tuple=True))
            wanted = "nowhere in view" if self.middle is None else f"at ({self.middle[0]:.1f}, {self.middle[1]:.1f})"
            raise Violation(
                f"the spot on an image is seen at ({x + 0.5:.1f}, {y + 0.5:.1f}) of input {number}, and {wanted} by "
                "its placement (x and y in pixels of the input)"
            )
        if self.middle is not None:
            yield bool(bright[int(self.middle[1]), int(self.middle[0])])


def _views(placements: Sequence[Placement], spots: Sequence[Spot]) -> Iterator[_View]:
    """The parts of an input by the image that covers them."""
    height, width = placements[0].input_size
    grid = _centres(height, width)
    left = torch.ones(height, width, dtype=torch.bool)
    blended: list[tuple[Placement, Spot]] = []
    for placement in reversed(placements):
        spot = spots[placement.sample]
        if placement.share < 1 and placement is not placements[0]:
            blended.append((placement, spot))
            continue
        together = [(placement, spot), *blended]
        inner = torch.stack([_inside(each, grid) for each, _ in together]).all(0)
        region = left & inner
        yield _View(region, [_near(*each, grid) for each in together], _middle(placement, spot, blended, region))
        left &= ~_within(grid, placement.seen, -_BORDER)


def _middle(
    placement: Placement, spot: Spot, blended: Sequence[tuple[Placement, Spot]], region: Tensor
) -> tuple[float, float] | None:
    """Where a spot's middle is in the input, if it is in view and nothing is blended over it."""
    x, y = placement.points(torch.tensor([spot.at], dtype=torch.float64))[0].tolist()
    height, width = region.shape
    if blended or not (0 <= x < width and 0 <= y < height and region[int(y), int(x)]):
        return None
    return x, y


def _inside(placement: Placement, grid: Tensor) -> Tensor:
    """(h, w) bool: pixels of the input that show the image, less a border."""
    height, width = placement.size
    across, down = _sides(placement)
    x, y = _BORDER / across, _BORDER / down
    own = _within(placement.restored_points(grid), (x, y, width - x, height - y))
    return own & _within(grid, placement.seen, _BORDER)


def _near(placement: Placement, spot: Spot, grid: Tensor) -> Tensor:
    """(h, w) bool: pixels of the input in which the spot may be seen."""
    height, width = placement.size
    rows, columns = spot.sample.image.shape[-2:]
    slack = _PIXELS / min(_sides(placement)) + _DECODED * max(height / rows, width / columns)
    distance = (placement.restored_points(grid) - torch.tensor(spot.at)).norm(dim=-1)
    return distance <= spot.radius + slack


def _sides(placement: Placement) -> tuple[float, float]:
    """Pixels of the input that a pixel of the original is wide and high."""
    (a, b, _), (d, e, _) = placement.matrix
    return math.hypot(a, d), math.hypot(b, e)


def _within(points: Tensor, window: Sequence[float], border: float = 0.0) -> Tensor:
    low, high = torch.tensor(window, dtype=points.dtype).chunk(2)
    return ((points >= low + border) & (points <= high - border)).all(-1)


def _centres(rows: int, columns: int, height: float = 1.0, width: float = 1.0) -> Tensor:
    """(rows, columns, 2): x and y of pixels' middles."""
    ys, xs = (torch.arange(rows) + 0.5) * height, (torch.arange(columns) + 0.5) * width
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).double()
