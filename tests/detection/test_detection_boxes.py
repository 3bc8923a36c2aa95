"""The kind of target `boxes`: what is asked for, what is left aside, and what becomes of detections."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mtframe.data import DataInfo, Placement, Sample
from mtframe.drawing import draw_marks
from mtframe.marks import Box
from mtframe_detection.boxes import Boxes

BOXES = Boxes(DataInfo("boxes", ("cat", "dog")))
PLACE = Placement.scaled((100, 200), (60, 100), (0.5, 0.5), (0.0, 5.0))


def label_of(boxes: Any = (), labels: Any = (), crowd: Any = None) -> dict[str, Tensor]:
    found = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    return {
        "boxes": found, "labels": torch.tensor(labels, dtype=torch.long),
        "crowd": torch.tensor(crowd if crowd is not None else [False] * len(found), dtype=torch.bool),
    }  # fmt: skip


def found_of(boxes: Any = (), scores: Any = (), labels: Any = ()) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).float().reshape(-1, 4), "scores": torch.tensor(scores).float(),
        "labels": torch.tensor(labels, dtype=torch.long),
    }  # fmt: skip


def test_boxes_move_with_their_image_and_crowds_are_left_aside() -> None:
    label = label_of([[10, 20, 30, 40], [0, 0, 200, 100]], [1, 0], [False, True])
    placed = BOXES.placed([(label, PLACE)])
    assert placed["boxes"].tolist() == [[5, 15, 15, 25]]
    assert placed["boxes"].dtype == torch.float32
    assert placed["labels"].tolist() == [1]
    assert placed["ignore"].tolist() == [[0, 5, 100, 55]]
    assert placed["known"]
    mirrored = BOXES.placed([(label, PLACE.flipped())])
    assert mirrored["boxes"].tolist() == [[85, 15, 95, 25]]


def test_boxes_whose_iou_is_just_a_threshold_are_moved_in_double() -> None:
    """In single precision the sides of a photograph's boxes would be off by a part of a pixel."""
    label = label_of([[4000.1, 3000.2, 4000.3, 3000.4]], [0])
    (box,) = BOXES.placed([(label, Placement.scaled((5000, 5000), (5000, 5000), (1, 1), (-4000, -3000)))])["boxes"]
    np.testing.assert_allclose(box.tolist(), [0.1, 0.2, 0.3, 0.4], atol=1e-6)


def test_how_much_of_a_thing_must_be_seen() -> None:
    place = replace(Placement.scaled((100, 100), (50, 50), (1, 1)), min_visible=0.5)
    label = label_of([[30, 0, 60, 20], [45, 0, 65, 20], [0, 0, 1.5, 50], [60, 60, 90, 90]], [0, 1, 0, 1])
    placed = BOXES.placed([(label, place)])
    # Two thirds are seen; a quarter; whole, but of less than two pixels; not at all.
    assert placed["boxes"].tolist() == [[30, 0, 50, 20]]
    assert placed["ignore"].tolist() == [[45, 0, 50, 20], [0, 0, 1.5, 50]]
    exact = BOXES.placed([(label, replace(place, min_visible=None))])
    assert exact["boxes"].tolist() == [[30, 0, 50, 20], [45, 0, 50, 20], [0, 0, 1.5, 50]]
    assert exact["ignore"].shape == (0, 4)


def test_ragged_labels_are_padded_with_masks() -> None:
    place = Placement.scaled((100, 100), (100, 100), (1, 1))
    labels = [
        label_of([[0, 0, 10, 10], [5, 5, 20, 20]], [0, 1]), label_of(), BOXES.unknown(),
        label_of([[1, 1, 9, 9]], [1], [True]),
    ]  # fmt: skip
    targets = BOXES.collate([BOXES.placed([(label, place)]) for label in labels])
    assert {name: tuple(value.shape) for name, value in targets.items()} == {
        "boxes": (4, 2, 4), "labels": (4, 2), "ignore": (4, 1, 4), "valid": (4, 2), "ignore_valid": (4, 1),
        "known": (4,),
    }  # fmt: skip
    assert targets["valid"].tolist() == [[True, True], [False, False], [False, False], [False, False]]
    assert targets["ignore_valid"].flatten().tolist() == [False, False, True, True]
    assert BOXES.known(targets).tolist() == [True, True, False, True]
    assert targets["boxes"].isfinite().all()
    assert targets["ignore"].isfinite().all()


TURNED = Placement.by_inverse(np.array([[0.6, -0.8, 3], [0.8, 0.6, 9]]), (9, 9), (60, 100))


@pytest.mark.parametrize("place", [PLACE, PLACE.flipped(), TURNED], ids=["plain", "mirrored", "turned"])
def test_of_an_unknown_image_all_is_left_aside_wherever_it_went(place: Placement) -> None:
    placed = BOXES.placed([(BOXES.unknown(), replace(place, min_visible=0.2))])
    assert not placed["known"]
    assert placed["boxes"].shape == (0, 4)
    ((x1, y1, x2, y2),) = placed["ignore"].tolist()
    # Points of feature maps may lie beyond the edge.
    assert max(x1, y1) <= -64
    assert x2 >= place.input_size[1] + 64
    assert y2 >= place.input_size[0] + 64


def test_detections_come_back_to_the_original() -> None:
    found = found_of([[0, 5, 50, 30], [90, 50, 120, 80]], [0.9, 0.4], [0, 1])
    back = BOXES.restored([(found, PLACE)])
    assert back["boxes"].tolist() == [[0, 0, 100, 50], [180, 90, 200, 100]]
    assert (back["scores"].tolist(), back["labels"].tolist()) == (pytest.approx([0.9, 0.4]), [0, 1])
    # Of the mirror image too, where the head does not say how to merge: the surest of each thing and class.
    mirrored = found_of([[49, 5, 100, 30], [49, 5, 100, 30]], [0.95, 0.3], [0, 1])
    merged = BOXES.restored([(found, PLACE), (mirrored, PLACE.flipped())])
    assert merged["boxes"].tolist() == [[0, 0, 102, 50], [180, 90, 200, 100], [0, 0, 102, 50]]
    assert merged["labels"].tolist() == [0, 1, 1]
    assert BOXES.restored([(found_of(), PLACE)] * 2)["boxes"].shape == (0, 4)


def test_detections_are_told_and_of_two_classes_on_one_thing_the_surer_is_drawn() -> None:
    found = found_of([[10, 10, 50, 50], [11, 10, 50, 50], [60, 60, 90, 90]], [0.9, 0.6, 0.25], [0, 1, 1])
    described = BOXES.plain(found)
    assert described[1] == {"label": "dog", "score": float(found["scores"][1]), "box": [11, 10, 50, 50]}
    assert json.loads(json.dumps(described)) == described
    assert BOXES.marks(found) == [
        Box((10, 10, 50, 50), "cat 0.90", 0, pytest.approx(0.9)), Box((60, 60, 90, 90), "dog 0.25", 1, 0.25)
    ]  # fmt: skip
    assert BOXES.marks(found_of()) == BOXES.plain(found_of()) == []


def test_labels_are_drawn_and_what_is_left_aside_in_grey() -> None:
    label = label_of([[10, 20, 30, 40], [0, 0, 200, 100]], [1, 0], [False, True])
    of_original = BOXES.label_marks(label)
    assert of_original == [Box((10, 20, 30, 40), "dog", 1), Box((0, 0, 200, 100), "ignored", None)]
    assert BOXES.label_marks(BOXES.placed([(label, PLACE)])) == [
        Box((5, 15, 15, 25), "dog", 1), Box((0, 5, 100, 55), "ignored", None)
    ]  # fmt: skip
    # Of which nothing is known, too: no rectangle without end.
    for unknown in (BOXES.unknown(), BOXES.placed([(BOXES.unknown(), PLACE)])):
        (mark,) = BOXES.label_marks(unknown)
        assert isinstance(mark, Box)
        assert mark.colour is None
        assert np.isfinite(mark.corners).all()
        draw_marks(Image.new("RGB", (100, 60)), {"boxes": [mark]})


def test_who_knows_the_label_is_right() -> None:
    samples = [
        Sample(torch.empty(0), label_of([[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 90, 90]], [0, 1, 0],
                                        [False, False, True]), (100, 200)),
        Sample(torch.empty(0), label_of(), (100, 200)),
    ]  # fmt: skip
    perfect = [BOXES.perfect(one) for one in samples]
    assert [len(one["boxes"]) for one in perfect] == [2, 0]
    assert BOXES.rightness(perfect, samples) == 1
    half = [found_of([[0, 0, 10, 5], [20, 20, 40, 40]], [1, 0.5], [0, 1]), found_of()]
    assert BOXES.rightness(half, samples) == pytest.approx(0.5)
    assert BOXES.rightness(perfect[1:], samples[1:]) is None


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"crowd": torch.zeros(1).bool()}, r"expected boxes \(N, 4\), got none"),
        ({"boxes": torch.zeros(1, 4), "crowd": torch.zeros(1).bool()}, "expected a label for each box"),
        ({"boxes": torch.zeros(1, 4), "labels": torch.zeros(1).long()}, r"expected crowd \(N,\)"),
        (label_of([[0, 0, 300, 10]], [0]), r"expected boxes inside the image, 0..200 by 0..100 pixels, got 0..300 by"),
        (label_of([[50, 0, 20, 10]], [0]), "expected boxes XYXY, got one whose end is before its start"),
        (label_of([[0, 0, 20, 10]], [2]), r"expected labels of 0 to 1, got 2..2"),
    ],
)
def test_what_is_no_label_is_told(label: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BOXES.check_label(label, (100, 200))


def test_what_is_no_prediction_is_told() -> None:
    BOXES.check_prediction(found_of([[0, 0, 200, 100]], [1], [1]), (100, 200))
    with pytest.raises(ValueError, match="expected a score for each box"):
        BOXES.check_prediction({**found_of([[0, 0, 9, 9]], [1], [1]), "scores": torch.zeros(2)}, (100, 200))
    with pytest.raises(ValueError, match=r"expected scores of 0 to 1, got 3..3"):
        BOXES.check_prediction(found_of([[0, 0, 9, 9]], [3], [1]), (100, 200))
