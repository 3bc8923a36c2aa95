from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError, RecipeError
from mtframe.kinds import ChoosesThresholds
from mtframe.metrics import Thresholds
from mtframe_face.pairs import Pairs
from mtframe_face.verification import FaceVerification


def _metric(pairs: list[tuple[int, int, bool, int]], far: float | None = None) -> FaceVerification:
    first, second, same, fold = (np.array(column) for column in zip(*pairs, strict=True))
    data = SimpleNamespace(pairs=Pairs(first, second, same, fold))
    return FaceVerification(data, DataInfo("identity", ()), far=far)


def _feed(metric: FaceVerification, vectors: dict[int, list[float]]) -> None:
    samples = [Sample(torch.empty(0), {}, (1, 1), index) for index in vectors]
    metric.update([{"embedding": torch.tensor(vector)} for vector in vectors.values()], samples)


FOUR = [(0, 1, True, 0), (0, 2, False, 0), (1, 0, True, 1), (1, 2, False, 1)]
VECTORS = {2: [0.0, 3.0], 0: [2.0, 0.0], 1: [1.0, 0.1]}


def test_cosines_of_pairs_decide_and_order_and_length_do_not_matter() -> None:
    metric = _metric(FOUR)
    _feed(metric, VECTORS)
    scores, present = metric.similarities()
    np.testing.assert_allclose(scores, [1 / math.sqrt(1.01), 0, 1 / math.sqrt(1.01), 0.1 / math.sqrt(1.01)], rtol=1e-6)
    assert present.all()
    values = metric.compute()
    assert (values["accuracy"], values["accuracy_se"], values["auc"], values["eer"]) == (1, 0, 1, 0)
    assert values["missing_pairs"] == 0
    assert metric.primary in values


def test_merging_two_processes_is_as_one() -> None:
    whole, left, right = _metric(FOUR), _metric(FOUR), _metric(FOUR)
    _feed(whole, VECTORS)
    _feed(left, {0: VECTORS[0]})
    _feed(right, {1: VECTORS[1], 2: VECTORS[2]})
    left.merge(right)
    np.testing.assert_equal(left.compute(), whole.compute())


def test_an_unreadable_image_costs_its_pairs_and_is_told() -> None:
    metric = _metric([*FOUR, (0, 7, True, 0)])
    _feed(metric, VECTORS)
    values = metric.compute()
    assert values["missing_pairs"] == 1
    assert values["accuracy"] == 1
    metric.reset()
    with pytest.raises(DataError, match="nothing to score"):
        metric.compute()
    _feed(metric, {0: [1.0, 0.0]})
    with pytest.raises(DataError, match="none of the 5 pairs has both its images embedded"):
        metric.compute()


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    metric = _metric(FOUR)
    _feed(metric, VECTORS | {2: [math.nan, 1.0]})
    with pytest.raises(DataError, match="1 of 3 embeddings are not finite"):
        metric.compute()


def test_the_roc_curve_is_in_the_details() -> None:
    metric = _metric(FOUR)
    _feed(metric, VECTORS)
    (curve,) = metric.details()
    assert curve.name == "roc"
    # The same pair twice, then two different ones.
    assert curve.lines == {"pairs": ([0.0, 0.0, 0.5, 1.0], [0.0, 1.0, 1.0, 1.0])}


# Cosines with image 0: 1.0, 0.8 (same), 0.6, 0.0 (other).
TURNED = {0: [1.0, 0.0], 1: [1.0, 0.0], 2: [0.8, 0.6], 3: [0.6, 0.8], 4: [0.0, 1.0]}
OF_ONE_AND_TWO = [(0, 1, True, 0), (0, 2, True, 1), (0, 3, False, 0), (0, 4, False, 1)]


def test_thresholds_are_chosen_and_what_the_pairs_cannot_tell_is_said() -> None:
    metric = _metric(OF_ONE_AND_TWO)
    assert isinstance(metric, ChoosesThresholds)
    _feed(metric, TURNED)
    values, found = metric.compute(), metric.thresholds()
    assert (found.chosen, found.data) == ("accuracy", "2 pairs of one person and 2 of two")
    assert found.values == {"accuracy": pytest.approx(0.7)}
    assert found.value == values["threshold@accuracy"]
    assert found.rates == {"accuracy": 0.0}
    assert math.isnan(values["threshold@far=1e-1"])
    assert metric.gaps()["threshold@far=1e-1"] == "takes 10 pairs of two people, and there are 2"


def test_a_threshold_is_chosen_for_a_false_accept_rate() -> None:
    metric = _metric(OF_ONE_AND_TWO, far=0.5)
    _feed(metric, TURNED)
    # One of two pairs of different people may pass, at 0.6, and the other must not, at 0.
    assert metric.thresholds() == Thresholds(
        "far=5e-1",
        {"accuracy": pytest.approx(0.7), "far=5e-1": pytest.approx(0.3)},
        "2 pairs of one person and 2 of two",
        {"accuracy": 0.0, "far=5e-1": 0.5},
    )
    none = _metric(OF_ONE_AND_TWO, far=0.25)
    _feed(none, TURNED)
    assert (none.thresholds().chosen, none.thresholds().value) == ("far=2.5e-1", None)
    with pytest.raises(RecipeError, match="far: must be above 0 and below 1, got 1"):
        _metric(OF_ONE_AND_TWO, far=1.0)


def test_a_kept_threshold_is_scored_on_other_pairs() -> None:
    metric = _metric(OF_ONE_AND_TWO)
    _feed(metric, TURNED)
    assert metric.scores_at(0.5) == {"threshold@kept": 0.5, "accuracy@kept": 0.75, "far@kept": 0.5, "frr@kept": 0.0}
    assert metric.scores_at(0.9) == {"threshold@kept": 0.9, "accuracy@kept": 0.75, "far@kept": 0.0, "frr@kept": 0.5}
