"""Labels of whole images: one class, any classes, numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mtframe.data import DataInfo, Placement, Sample
from mtframe.marks import Bar, Text
from mtframe_classification.targets import Label, Labels, Value

LABEL = Label(DataInfo("label", ("cat", "dog", "owl")))
LABELS = Labels(DataInfo("labels", ("tame", "old")))
VALUE = Value(DataInfo("value", ("age", "weight")))
WHOLE = Placement.scaled((10, 10), (10, 10), (1, 1))
OVER_A_QUARTER = replace(WHOLE, window=(0.0, 0.0, 5.0, 5.0))
ALL_OVER = replace(WHOLE, window=(0.0, 0.0, 10.0, 10.0))
NAN = math.nan


def sample(**target: Tensor) -> Sample:
    return Sample(torch.empty(0), target, (10, 10))


def test_of_one_image_a_label_is_what_it_was() -> None:
    mirrored = replace(WHOLE.flipped(), min_visible=0.2)
    for target, label in (
        (LABEL, {"label": torch.tensor(2)}), (LABELS, {"labels": torch.tensor([1, NAN])}),
        (VALUE, {"value": torch.tensor([NAN, 3.5])}),
    ):  # fmt: skip
        placed = target.placed([({**label, "landmarks": torch.zeros(5, 2)}, mirrored)])
        assert placed.keys() == label.keys()
        torch.testing.assert_close(placed, label, equal_nan=True)


def test_of_several_images_it_is_their_mixture() -> None:
    parts = [({"label": torch.tensor(0)}, WHOLE), ({"label": torch.tensor(2)}, OVER_A_QUARTER)]
    placed = LABEL.placed(parts)
    assert placed["label"] == 0
    assert placed["probabilities"].tolist() == [0.75, 0, 0.25]
    several = [({"labels": torch.tensor([1.0, 0])}, WHOLE), ({"labels": torch.tensor([0.0, NAN])}, OVER_A_QUARTER)]
    torch.testing.assert_close(LABELS.placed(several)["labels"], torch.tensor([0.75, NAN]), equal_nan=True)
    # Twice the same class is that class.
    assert LABEL.placed([parts[0], (parts[0][0], OVER_A_QUARTER)])["probabilities"].tolist() == [1, 0, 0]


def test_what_is_not_seen_does_not_count_though_nothing_is_known_of_it() -> None:
    unknown, nobody = LABEL.unknown(), LABELS.unknown()
    placed = LABEL.placed([({"label": torch.tensor(1)}, WHOLE), (unknown, replace(WHOLE, window=(0.0,) * 4))])
    assert (placed["label"], placed["probabilities"].tolist()) == (1, [0, 1, 0])
    hidden = LABELS.placed([(nobody, WHOLE), ({"labels": torch.tensor([1.0, 0])}, ALL_OVER)])
    assert hidden["labels"].tolist() == [1, 0]
    # The one below is hidden, so the one above is all that is said.
    below = LABEL.placed([(unknown, WHOLE), ({"label": torch.tensor(1)}, ALL_OVER)])
    assert below["probabilities"].tolist() == [0, 1, 0]
    assert LABEL.known(LABEL.collate([below])).tolist() == [True]


def test_a_batch_of_mixed_and_plain_ones() -> None:
    plain = LABEL.placed([({"label": torch.tensor(1)}, WHOLE)])
    mixed = LABEL.placed([({"label": torch.tensor(0)}, WHOLE), ({"label": torch.tensor(2)}, OVER_A_QUARTER)])
    unknown = LABEL.placed([(LABEL.unknown(), WHOLE)])
    targets = LABEL.collate([plain, mixed, unknown])
    assert targets["label"].tolist() == [1, 0, -1]
    assert targets["probabilities"].tolist() == [[0, 1, 0], [0.75, 0, 0.25], [0, 0, 0]]
    assert LABEL.known(targets).tolist() == [True, True, False]
    assert LABEL.collate([plain, unknown]).keys() == {"label"}
    several = LABELS.collate([{"labels": torch.tensor([NAN, 1])}, LABELS.unknown()])
    assert LABELS.known(several).tolist() == [True, False]
    numbers = VALUE.collate([{"value": torch.tensor([2.0, NAN])}, VALUE.unknown()])
    assert VALUE.known(numbers).tolist() == [True, False]
    assert numbers["value"].shape == (2, 2)


def test_predictions_are_told_and_drawn() -> None:
    probabilities = {"probabilities": torch.tensor([0.25, 0.7, 0.05])}
    assert LABEL.plain(probabilities) == [
        {"label": "dog", "probability": pytest.approx(0.7)}, {"label": "cat", "probability": 0.25},
        {"label": "owl", "probability": pytest.approx(0.05)},
    ]  # fmt: skip
    assert LABEL.marks(probabilities)[:2] == [Bar("dog", "0.70", pytest.approx(0.7)), Bar("cat", "0.25", 0.25)]
    assert [row["label"] for row in LABELS.plain({"probabilities": torch.tensor([0.1, 0.9])})] == ["old", "tame"]
    numbers = {"values": torch.tensor([31.25, -2.0])}
    assert VALUE.plain(numbers) == {"age": 31.25, "weight": -2.0}
    assert VALUE.marks(numbers) == [Bar("age", "31.25"), Bar("weight", "-2")]
    assert json.loads(json.dumps(LABEL.plain(probabilities))) == LABEL.plain(probabilities)


def test_labels_are_drawn_and_what_is_unknown_is_not() -> None:
    assert LABEL.label_marks({"label": torch.tensor(2)}) == [Text("owl")]
    mixture = {"label": torch.tensor(0), "probabilities": torch.tensor([0.75, 0, 0.25])}
    assert LABEL.label_marks(mixture) == [Text("0.75 cat"), Text("0.25 owl")]
    assert LABELS.label_marks({"labels": torch.tensor([0, 1.0])}) == [Text("old")]
    assert VALUE.label_marks({"value": torch.tensor([NAN, 12.5])}) == [Text("weight 12.5")]
    for target in (LABEL, LABELS, VALUE):
        assert target.label_marks(target.unknown()) == []


def test_who_knows_the_label_is_right() -> None:
    samples = [sample(label=torch.tensor(n)) for n in (0, 2, -1)]
    assert LABEL.perfect(samples[1])["probabilities"].tolist() == [0, 0, 1]
    assert LABEL.rightness([LABEL.perfect(one) for one in samples], samples) == 1
    half = [{"probabilities": torch.tensor([0.5, 0.5, 0])}] * 3
    assert LABEL.rightness(half, samples) == 0.25
    assert LABEL.rightness(half[:1], samples[2:]) is None
    several = [sample(labels=torch.tensor([1.0, NAN])), sample(labels=torch.tensor([0.0, 1]))]
    assert LABELS.rightness([LABELS.perfect(one) for one in several], several) == 1
    assert LABELS.rightness([{"probabilities": torch.tensor([0.5, 0.1])}] * 2, several) == pytest.approx(1.1 / 3)
    numbers = [sample(value=torch.tensor([3.0, NAN]))]
    assert VALUE.rightness([VALUE.perfect(numbers[0])], numbers) == 1
    assert VALUE.rightness([{"values": torch.tensor([7.0, 0])}], numbers) == 0.5
    assert VALUE.rightness([{"values": torch.zeros(2)}], [sample(value=torch.full((2,), NAN))]) is None


def test_what_is_no_label_and_no_prediction_is_told() -> None:
    for wrong in ({}, {"label": torch.tensor([1])}, {"label": torch.tensor(3)}, {"label": torch.tensor(1.0)}):
        with pytest.raises(ValueError, match="expected 'label', a whole number of -1 to 2"):
            LABEL.check_label(wrong, (10, 10))
    for label in (-1, 2):
        LABEL.check_label({"label": torch.tensor(label)}, (10, 10))
    with pytest.raises(ValueError, match=r"expected 'labels' \(2,\), got none"):
        LABELS.check_label({}, (10, 10))
    with pytest.raises(ValueError, match=r"expected labels to be numbers of 0 to 1 or NaN, got \[2.0, 0.0\]"):
        LABELS.check_label({"labels": torch.tensor([2.0, 0])}, (10, 10))
    LABELS.check_label({"labels": torch.tensor([NAN, 0.3])}, (10, 10))
    with pytest.raises(ValueError, match=r"expected probabilities to be numbers of 0 to 1, got"):
        LABELS.check_prediction({"probabilities": torch.tensor([NAN, 0])}, (10, 10))
    with pytest.raises(ValueError, match=r"expected 'probabilities' \(3,\), got \(2,\)"):
        LABEL.check_prediction({"probabilities": torch.tensor([0.5, 0.5])}, (10, 10))
    with pytest.raises(ValueError, match="expected values to be numbers, got"):
        VALUE.check_prediction({"values": torch.tensor([math.inf, 0])}, (10, 10))
    VALUE.check_label({"value": torch.tensor([NAN, -5])}, (10, 10))
