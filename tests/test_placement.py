"""Maps that follow their image, against the grid of all coordinates; and where an image is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.data import Placement

SIZE, INPUT = (37, 52), (40, 48)


def turned(angle: float) -> Placement:
    cos, sin = np.cos(angle), np.sin(angle)
    return Placement.by_inverse(np.array([[cos, -sin, 5.3], [sin, cos, -4.1]]), SIZE, INPUT)


PLACEMENTS = {
    "fitted": Placement.scaled(SIZE, INPUT, (48 / 52, 34 / 37), (0.0, 3.0)),
    "cut": Placement.scaled(SIZE, INPUT, (1.9, 2.1), (-20.0, -31.0)),
    "mirrored": Placement.scaled(SIZE, INPUT, (0.9, 0.9), (2.0, 1.0)).flipped(),
    "upside down": Placement(((0.7, 0.0, 4.0), (0.0, -0.7, 33.0)), SIZE, INPUT),
    "in a window": replace(Placement.scaled(SIZE, INPUT, (0.9, 0.9), (2.0, 1.0)), window=(7.0, 3.0, 30.5, 21.4)),
    "elsewhere": Placement.scaled(SIZE, INPUT, (1.0, 1.0), (100.0, 0.0)),
    "turned": turned(0.3),
    "turned in a window": replace(turned(-0.8), window=(7.0, 3.0, 30.5, 21.4)),
}
placements = pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)


def pixels(height: int, width: int) -> Tensor:
    """(height * width, 2) x and y of all centres."""
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([xs.flatten(), ys.flatten()], dim=1).double()


@placements
def test_a_placed_map_has_in_each_pixel_what_the_image_has_there(placement: Placement) -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 200, SIZE, dtype=np.uint8))
    expected = []
    x1, y1, x2, y2 = placement.seen
    for centre in pixels(*INPUT):
        x, y = (int(place) for place in placement.restored_points(centre[None])[0].floor())
        seen = x1 <= centre[0] < x2 and y1 <= centre[1] < y2 and 0 <= x < SIZE[1] and 0 <= y < SIZE[0]
        expected.append(int(values[y, x]) if seen else 255)
    placed = placement.placed_map(values, 255)
    assert placed.dtype == torch.uint8
    assert placed.flatten().tolist() == expected


@placements
@pytest.mark.parametrize("shape", [(10, 12), (40, 48), (1, 1)], ids=str)
def test_a_restored_map_is_the_bilinear_sampling_of_the_whole_input(
    placement: Placement, shape: tuple[int, int]
) -> None:
    values = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).double()
    extent = torch.tensor([INPUT[1], INPUT[0]])
    grid = (placement.points(pixels(*SIZE)) / extent * 2 - 1).view(1, *SIZE, 2)
    expected = F.grid_sample(values[None], grid, padding_mode="border", align_corners=False)[0]
    torch.testing.assert_close(placement.restored_map(values), expected)
    torch.testing.assert_close(placement.restored_map(values.float()), expected.float(), atol=1e-4, rtol=0)
    for rows in (slice(0, 5), slice(30, 99), slice(17, 18)):
        torch.testing.assert_close(placement.restored_map(values, rows), expected[:, rows])


def test_a_map_that_is_placed_and_restored_is_itself() -> None:
    values = torch.arange(12.0).view(3, 4)
    placement = Placement.scaled((3, 4), (12, 16), (4.0, 4.0)).flipped()
    placed = placement.placed_map(values, -1)
    assert placed.min() == 0
    middles = placement.restored_map(F.avg_pool2d(placed[None], 4))[0]
    torch.testing.assert_close(middles, values)


def test_pixels_are_seen_whose_centres_are_in_the_window() -> None:
    placement = PLACEMENTS["in a window"]
    assert placement.seen_pixels == (slice(3, 21), slice(7, 30))
    beyond = replace(placement, window=(-5.0, -5.0, 500.0, 2.5))
    assert beyond.seen_pixels == (slice(0, 2), slice(0, 48))
    shown = placement.placed_map(torch.zeros(SIZE), 1) == 0
    rows, columns = placement.seen_pixels
    assert shown.sum() == shown[rows, columns].sum() > 0
