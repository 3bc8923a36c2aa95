"""Masks on pictures: painted see-through, named on their regions, listed below, beside all other marks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from mtframe.drawing import caption, draw_marks
from mtframe.drawing._regions import Region, name_place
from mtframe.marks import Box, Mark, Mask, Point, Polyline, Text
from mtframe.palette import COLOURS, colour_of

GREY = (120, 120, 120)


def mask(size: int = 480) -> Mask:
    """The left third unknown, then road above sky; a spot of pole that is too small for its name."""
    values = torch.full((size, size), 255)
    values[: size // 2, size // 3 :] = 2
    values[size // 2 :, size // 3 :] = 9
    values[-8:, -8:] = 4
    return Mask(values, {2: "sky", 9: "road", 4: "pole", 5: "tree"})


def drawn(*marks: Mark, title: str = "scene") -> np.ndarray:
    return np.array(draw_marks(Image.new("RGB", (480, 480), GREY), {title: marks}))


def test_classes_have_colours_of_their_own() -> None:
    assert [colour_of(number) for number in range(len(COLOURS))] == list(COLOURS)
    colours = [ImageColor.getrgb(colour_of(number)) for number in range(40)]
    apart = [np.abs(np.subtract(one, other)).sum() for n, one in enumerate(colours) for other in colours[:n]]
    assert min(apart) > 20


def test_regions_are_painted_see_through_and_the_rest_stays() -> None:
    pixels = drawn(mask())
    assert (pixels[20:460, 4:150] == GREY).all()
    for row, number in ((200, 2), (460, 9)):
        half = (np.array(ImageColor.getrgb(colour_of(number))) + GREY) / 2
        assert np.abs(pixels[row, 440] - half).max() <= 1
    edge = ImageColor.getrgb(colour_of(9))
    assert (pixels[240, 170:470] == edge).all()


def test_a_mask_of_another_resolution_is_laid_over_the_whole_picture() -> None:
    pixels = np.array(draw_marks(Image.new("RGB", (480, 480), GREY), {"scene": [mask(48)]}))
    assert (pixels[100, 100] == GREY).all()
    assert (pixels[100, 460] != GREY).any()


def test_a_panel_lists_all_regions_and_a_sheet_has_none() -> None:
    pixels = drawn(mask())
    below = pixels[480:]
    for number in (2, 9, 4):
        assert (below == ImageColor.getrgb(colour_of(number))).all(axis=2).sum() > 100
    assert not (below == ImageColor.getrgb(colour_of(5))).all(axis=2).any()
    tile = draw_marks(Image.new("RGB", (480, 480)), {"scene": [mask()]}, longest=200)
    assert tile.size == (200, 200)


def test_a_second_mask_is_outlined_over_the_first() -> None:
    inner = torch.zeros(480, 480, dtype=torch.long)
    inner[100:400, 200:400] = 1
    first = drawn(mask())[:480]
    both = drawn(mask(), Mask(inner, {1: "figure"}, {1: 6}))[:480]
    changed = (first != both).any(axis=2)
    assert changed[100:400, 200].all()
    assert not changed[120:130, 230:300].any()


def test_a_name_lies_on_its_region_and_on_no_other_name() -> None:
    where = np.zeros((120, 160), bool)
    where[40:100, 90:150] = True
    region = Region("road", "#000000", where, 0.2)
    place = name_place(region, (320, 240), (60.0, 20.0), [])
    assert place is not None
    x0, y0, x1, y1 = place
    assert 180 <= x0 < x1 <= 300
    assert 80 <= y0 < y1 <= 200
    other = name_place(region, (320, 240), (60.0, 20.0), [place])
    assert other is not None
    assert other[1] >= y1 or other[3] <= y0 or other[0] >= x1 or other[2] <= x0
    assert name_place(region, (320, 240), (200.0, 20.0), []) is None
    assert name_place(region, (320, 240), (60.0, 20.0), [(170.0, 70.0, 310.0, 210.0)]) is None


def test_the_middle_of_a_ring_is_not_named() -> None:
    y, x = np.mgrid[:120, :160]
    radius = np.hypot(x - 80, y - 60)
    region = Region("ring", "#000000", (radius < 58) & (radius > 40), 0.2)
    place = name_place(region, (320, 240), (24.0, 12.0), [])
    assert place is not None
    x0, y0, x1, y1 = (round(side / 2) for side in place)
    assert region.where[y0:y1, x0:x1].mean() >= 0.75


@pytest.mark.parametrize("offset", [0.0, 0.4, 0.5, 0.8])
def test_letters_of_labels_are_whole_wherever_their_box_is(offset: float) -> None:
    box = Box((100 + offset, 200 + offset, 300.0, 300.0), "person", 0)
    whole = drawn(Box((100.0, 200.0, 300.0, 300.0), "person", 0))[:200]
    ink = [(pixels.sum(axis=2) < 120).sum() for pixels in (whole, drawn(box)[:200])]
    assert ink[0] == ink[1] > 50


def test_masks_and_all_other_marks_are_on_one_picture() -> None:
    marks = [
        mask(), Box((200.0, 300.0, 300.0, 400.0), "car", 1, 0.9), Point((400.0, 100.0), "tip", 3),
        Polyline([(170.0, 470.0), (300.0, 260.0), (470.0, 300.0)], text="lane", colour=6), Text("noon"),
    ]  # fmt: skip
    pixels = drawn(*marks)
    assert (pixels[300, 205:295] == ImageColor.getrgb(colour_of(1))).all()
    assert (pixels[100, 400] == ImageColor.getrgb(colour_of(3))).all()
    # An open line is named at its upper end.
    lane = (pixels == ImageColor.getrgb(colour_of(6))).all(axis=2)[200:320, 290:400]
    assert lane[40:80].sum(axis=1).max() > 30
    assert caption(marks, 3) == "noon\nsky, road, pole\n3 objects"


@pytest.mark.parametrize(("closed", "mirrored"), [(True, False), (True, True), (False, True)])
def test_what_is_slanting_is_named_at_its_topmost_point(closed: bool, mirrored: bool) -> None:
    # A narrow bar from lower left to upper right, or the other way round: both other corners of its rectangle are bare.
    corners = [(100.0, 380.0), (380.0, 100.0), (400.0, 120.0), (120.0, 400.0)]
    points = [(480 - x, y) for x, y in corners] if mirrored else corners
    coloured = (drawn(Polyline(points, closed=closed, text="bar", colour=1)) == ImageColor.getrgb(colour_of(1))).all(2)
    x, y = points[1]
    rows, columns = coloured[:95].nonzero()
    assert len(rows) > 100
    assert abs(rows.max() - y) < 10
    assert np.abs(columns - x).max() < 60
