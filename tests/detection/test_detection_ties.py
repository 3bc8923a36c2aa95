"""Equal scores and equal IoUs: the 12 numbers are pycocotools', in whatever order images come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detected import INFO, Pair, prediction_of, reference, sample_of
from mtframe_detection.average_precision import CocoAP

# Few corners and sides, so that boxes coincide and IoUs are exactly 0.5 or equal.
_CORNERS, _SIDES = st.sampled_from([0, 10]), st.sampled_from([10, 20, 32, 40])
_BOX = st.tuples(_CORNERS, _CORNERS, _SIDES, _SIDES).map(lambda box: [*box[:2], box[0] + box[2], box[1] + box[3]])
_LABEL = st.integers(0, 1)
_OBJECT = st.tuples(_BOX, _LABEL, st.booleans())
# As a head in bf16 gives them: 8 bits, so that many are equal.
_SCORE = st.floats(0.7, 0.75).map(lambda score: float(torch.tensor(score).bfloat16()))
_FOUND = st.tuples(_BOX, _SCORE, _LABEL)
_IMAGE = st.tuples(st.lists(_OBJECT, min_size=1, max_size=5), st.lists(_FOUND, min_size=1, max_size=14))


def _pair(index: int, id: int, image: Any) -> Pair:
    objects, found = image
    sample = sample_of(index, *([row[column] for row in objects] for column in range(3)))
    sample.target["area"] = (sample.target["boxes"][:, 2:] - sample.target["boxes"][:, :2]).prod(dim=1)
    sample.target["image_id"] = torch.tensor(id)
    return prediction_of(*([row[column] for row in found] for column in range(3))), sample


def _metric(pairs: list[Pair], size: int) -> CocoAP:
    metric = CocoAP(INFO)
    for start in range(0, len(pairs), size):
        predictions, samples = zip(*pairs[start : start + size], strict=True)
        metric.update(predictions, samples)
    return metric


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_twelve_numbers_are_pycocotools_with_ties_in_any_order(data: st.DataObject) -> None:
    images = data.draw(st.lists(_IMAGE, min_size=2, max_size=5))
    # Ids have nothing to do with places in the data set.
    ids = data.draw(st.permutations(range(0, 3 * len(images), 3)))
    pairs = [_pair(index, id, image) for index, (id, image) in enumerate(zip(ids, images, strict=True))]
    expected = reference(pairs).tolist()
    shuffled = data.draw(st.permutations(pairs))
    metric = _metric(shuffled, data.draw(st.integers(1, 3)))
    assert list(metric.compute().values()) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    # As text, in which NaN is NaN.
    assert repr(metric.details()) == repr(_metric(pairs, len(pairs)).details())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_IMAGE, min_size=1, max_size=4))
def test_errors_are_counted_against_the_same_ap50(images: list[Any]) -> None:
    pairs = [_pair(index, index, image) for index, image in enumerate(images)]
    metric = _metric(pairs, 2)
    assert metric._mistakes()[1].ap50 == pytest.approx(metric.compute()["AP50"], abs=1e-9, nan_ok=True)


def test_equal_scores_on_two_images_are_taken_by_image_id() -> None:
    right = ([([0, 0, 10, 10], 0, False)], [([0, 0, 10, 10], 0.5, 0)])
    wrong = ([([0, 0, 10, 10], 0, False)], [([100, 0, 110, 10], 0.5, 0)])
    # Right first: precision 1 up to recall 1/2, 51 of 101 points. Wrong first: 1/2 there.
    assert _metric([_pair(0, 7, wrong), _pair(1, 5, right)], 1).compute()["AP50"] == pytest.approx(51 / 101)
    assert _metric([_pair(0, 5, wrong), _pair(1, 7, right)], 1).compute()["AP50"] == pytest.approx(51 / 202)


def test_of_objects_that_overlap_alike_the_last_is_found() -> None:
    # The first detection overlaps both objects by 2/3, the second only the last: once that is taken, it is wrong.
    objects = [([0, 0, 20, 10], 0, False), ([10, 0, 30, 10], 0, False)]
    found = [([5, 0, 25, 10], 0.9, 0), ([18, 0, 30, 10], 0.8, 0)]
    pair = _pair(0, 0, (objects, found))
    assert _metric([pair], 1).compute()["AP50"] == pytest.approx(reference([pair])[1])
    assert _metric([pair], 1)._mistakes()[1].ap50 == pytest.approx(reference([pair])[1])
