"""Kinds of target of our own, broken the same way there and back: only where labels are drawn does it show."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import mtframe_segmentation.masks
from mtframe.data import Placement
from mtframe.marks import Point, Polyline
from mtframe.testing import Kit, Violation
from mtframe.testing._follows import compare
from mtframe.testing._placed import quarter_turn, whole
from mtframe_detection.boxes import Boxes
from mtframe_segmentation.masks import UNKNOWN, Masks

SIZE = (40, 60)
PLACEMENTS = {**whole(SIZE), "turned by a quarter": quarter_turn(SIZE)}


def bar(x: float, y: float, length: float, width: float, angle: float) -> Polyline:
    """A rotated rectangle."""
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(across * length / 2, down * width / 2) for across, down in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return Polyline([(x + a * cos - d * sin, y + a * sin + d * cos) for a, d in corners], closed=True, text="bar")


def moved(placement: Placement, angle: float, scale: float) -> Polyline:
    """Where the bar of `test_a_rotated_bar...` comes to lie, but for the angle and the scale that are given."""
    x, y = placement.points(torch.tensor([30.0, 18.0])).tolist()
    return bar(x, y, 20 * scale, 6 * scale, angle)


RIGHT = {"mirrored": -0.5, "twice as large, padded and mirrored": -0.5, "turned by a quarter": 0.5 + math.pi / 2}
WRONG: dict[str, Callable[[str, Placement], tuple[float, float]]] = {
    "angle never moved": lambda how, placement: (0.5, placement.scale),
    "angle negated twice": lambda how, placement: (abs(RIGHT.get(how, 0.5)), placement.scale),
    "turn ignored": lambda how, placement: (0.5 if placement.turned else RIGHT.get(how, 0.5), placement.scale),
    "size never scaled": lambda how, placement: (RIGHT.get(how, 0.5), 1.0),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_rotated_bar_is_told_when_its_angle_or_size_is_wrong(mistake: str) -> None:
    marks = [bar(30, 18, 20, 6, 0.5)]
    said = []
    for how, placement in PLACEMENTS.items():
        assert compare(how, marks, [moved(placement, RIGHT.get(how, 0.5), placement.scale)], placement) == 4
        try:
            compare(how, marks, [moved(placement, *WRONG[mistake](how, placement))], placement)
        except Violation as error:
            said.append(str(error))
    assert said
    assert all(re.search(r"of Polyline 'bar' in .* the nearest Polyline of the placed label is [\d.]+ pixels", one)
               for one in said)  # fmt: skip


def test_a_line_that_goes_on_beyond_its_end_is_told() -> None:
    placement = PLACEMENTS["as it is"]
    long = Polyline([(5.0, 5.0), (20.0, 20.0), (30.0, 30.0)])
    said = r"'' in \(5.0, 5.0, 30.0, 30.0\) of the placed label has a point at \(30.0, 30.0\), and the nearest "
    with pytest.raises(Violation, match=said):
        compare("here", [Polyline([(5.0, 5.0), (20.0, 20.0)])], [long], placement)
    with pytest.raises(Violation, match="the placed label has no Point"):
        compare("here", [Point((5.0, 5.0))], [], placement)


def run(name: str, check: str) -> None:
    """One check of one of our kinds of target."""
    (case,) = [case for case in Kit("mtframe").cases() if case.id == f"target:{name}-{check}"]
    case.run()


def test_a_mask_that_is_not_moved_as_its_image_is_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[[Tensor, Placement], Tensor] = mtframe_segmentation.masks._seen
    run("mask", "follows-its-image")
    monkeypatch.setattr(mtframe_segmentation.masks, "_seen", lambda mask, place: right(mask, place).roll(3, 1))
    said = (
        r"sample \d+, as it is: the mask of the placed label has another number than the original's has in \d+ of \d+ p"
    )
    with pytest.raises(Violation, match=said):
        run("mask", "follows-its-image")


def test_a_box_that_is_cut_off_is_right_where_the_image_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = Boxes.placed

    def reaching_out(self: Boxes, parts: Any) -> dict[str, Tensor]:
        # As annotations do that nobody has clipped.
        out = [({**label, "boxes": label["boxes"] - 3}, placement) for label, placement in parts]
        return placed(self, out)

    marks = Boxes.label_marks
    monkeypatch.setattr(Boxes, "placed", reaching_out)
    with pytest.raises(Violation, match="of the input, and the nearest Box of the placed label is"):
        run("boxes", "follows-its-image")

    def of_originals(self: Boxes, label: Any) -> Any:
        return marks(self, {**label, "boxes": label["boxes"] - 3} if "crowd" in label else label)

    monkeypatch.setattr(Boxes, "label_marks", of_originals)
    run("boxes", "follows-its-image")


def test_what_is_left_of_a_box_is_asked_for_only_where_enough_of_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = Boxes.placed
    run("boxes", "min-visible")

    def asking_for_all(self: Boxes, parts: Any) -> dict[str, Tensor]:
        return placed(self, [(label, replace(placement, min_visible=None)) for label, placement in parts])

    monkeypatch.setattr(Boxes, "placed", asking_for_all)
    with pytest.raises(Violation, match=r"shows 0\.2 of Box .* expected none, or one whose colour is None"):
        run("boxes", "min-visible")


def test_a_mask_says_nothing_of_an_unknown_part(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = Masks.placed
    run("mask", "unknown-part")

    def first_class(self: Masks, parts: Any) -> dict[str, Tensor]:
        mask = placed(self, parts)["mask"]
        return {"mask": mask.masked_fill(mask == UNKNOWN, 0) if len(parts) > 1 else mask}

    monkeypatch.setattr(Masks, "placed", first_class)
    with pytest.raises(Violation, match="'mask' says something of that image's part"):
        run("mask", "unknown-part")


def test_probabilities_in_another_order_are_another_prediction() -> None:
    """Else no two images of one class each would differ, and views could not be told apart."""
    run("label", "each-view")
