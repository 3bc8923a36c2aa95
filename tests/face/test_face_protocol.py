from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from mtframe_face.verification_scores import (
    area_under,
    best_threshold,
    decisions,
    equal_error_rate,
    far_name,
    fold_accuracies,
    mean_and_error,
    roc,
    threshold_at,
    true_accept_rate,
    verification_scores,
)


def _scored(draw_values: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, same = zip(*draw_values, strict=True)
    return np.array(scores, float), np.array(same, bool)


# Few distinct values, so that ties are common.
_PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30).map(_scored)
_BOTH_KINDS = _PAIRS.filter(lambda pairs: 0 < pairs[1].sum() < len(pairs[1]))


def test_threshold_is_halfway_between_the_neighbours() -> None:
    scores, same = np.array([0.1, 0.9, 0.4, 0.8]), np.array([False, True, False, True])
    assert best_threshold(scores, same) == pytest.approx(0.6)


def test_threshold_accepts_all_or_none_where_that_is_best() -> None:
    scores = np.array([0.1, 0.2, 0.3])
    assert best_threshold(scores, np.array([True, True, True])) == -math.inf
    assert best_threshold(scores, np.array([False, False, False])) == math.inf


def test_equal_scores_are_not_torn_apart() -> None:
    scores, same = np.array([0.5, 0.5, 0.5, 0.7]), np.array([True, False, False, True])
    threshold = best_threshold(scores, same)
    assert threshold == pytest.approx(0.6)
    assert ((scores >= threshold) == same).sum() == 3


def test_threshold_between_neighbouring_floats_rejects_the_lower() -> None:
    low = 0.5
    high = np.nextafter(low, 1)
    threshold = best_threshold(np.array([low, high]), np.array([False, True]))
    assert low < threshold <= high


@given(_PAIRS)
def test_no_threshold_is_better_than_the_swept_one(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = pairs
    threshold = best_threshold(scores, same)
    tried = np.concatenate((np.unique(scores) - 0.5, np.unique(scores), np.unique(scores) + 0.5))
    best = max(((scores >= other) == same).sum() for other in tried)
    assert ((scores >= threshold) == same).sum() == best


def test_a_fold_is_decided_by_the_other_folds_threshold() -> None:
    # Folds 0 and 2 put the threshold at 0.25; fold 1, by itself separable at 0.5, loses a pair to it.
    fold = np.repeat([0, 1, 2], [4, 2, 4])
    scores = np.array([0.2, 0.3, 0.2, 0.3, 0.4, 0.6, 0.2, 0.3, 0.2, 0.3])
    same = np.tile([False, True], 5)
    assert fold_accuracies(scores, same, fold).tolist() == [1, 0.5, 1]


def test_ten_folds_by_hand() -> None:
    # Every fold is separable at one threshold but the last, whose pairs are exchanged.
    fold = np.repeat(np.arange(10), 2)
    scores = np.tile([0.0, 1.0], 10)
    same = np.tile([False, True], 10)
    same[-2:] = [True, False]
    accuracies = fold_accuracies(scores, same, fold)
    assert accuracies.tolist() == [1.0] * 9 + [0.0]
    mean, error = mean_and_error(accuracies)
    # Sample variance of nine ones and a zero is 9 (0.1)² + (0.9)² over 9 = 0.1; its root over √10 is 0.1.
    assert (mean, error) == (pytest.approx(0.9), pytest.approx(0.1))


def test_one_fold_has_no_threshold_of_its_own() -> None:
    accuracies = fold_accuracies(np.array([0.0, 1.0]), np.array([False, True]), np.array([3, 3]))
    assert len(accuracies) == 0
    assert all(math.isnan(value) for value in mean_and_error(accuracies))


@given(_BOTH_KINDS)
def test_roc_and_its_area_agree_with_sklearn(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = pairs
    false_rates, true_rates = roc(scores, same)
    expected_false, expected_true, _ = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_rates, expected_false)
    np.testing.assert_allclose(true_rates, expected_true)
    assert area_under(false_rates, true_rates) == pytest.approx(roc_auc_score(same, scores))


@pytest.mark.parametrize(
    ("scores", "same", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 1.0),
        ([0.1, 0.6, 0.4, 0.9], [0, 0, 1, 1], 0.5),
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1], 0.5),  # one diagonal from (0, 0) to (1, 1)
        ([0.1, 0.2, 0.7, 0.5, 0.8, 0.9], [0, 0, 0, 1, 1, 1], 1 / 3),
        # FAR 0, 0, 1 with TAR 0, 1/2, 1: FAR + TAR = 1 at a third of the last segment's way from FAR 0.
        ([0.9, 0.5, 0.5], [1, 1, 0], 1 / 3),
    ],
)
def test_equal_error_rate_by_hand(scores: list[float], same: list[int], expected: float) -> None:
    assert equal_error_rate(*roc(np.array(scores), np.array(same, bool))) == pytest.approx(expected)


@given(_BOTH_KINDS)
def test_equal_error_rate_lies_on_a_segment_of_the_curve(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    false_rates, true_rates = roc(*pairs)
    rate = equal_error_rate(false_rates, true_rates)
    start, end = np.stack((false_rates, true_rates), 1)[:-1], np.stack((false_rates, true_rates), 1)[1:]
    along, off = end - start, np.array([rate, 1 - rate]) - start
    part = (along * off).sum(1) / (along**2).sum(1)
    distance = np.linalg.norm(off - part.clip(0, 1)[:, None] * along, axis=1)
    assert distance.min() < 1e-9


def test_true_accept_rate_is_given_only_where_the_pairs_can_tell() -> None:
    negatives = np.linspace(0, 0.99, 100)
    positives = np.array([0.985, 0.995, 0.5, 0.2])
    scores = np.concatenate((negatives, positives))
    same = np.repeat([False, True], [100, 4])
    false_rates, true_rates = roc(scores, same)
    # One false accept in 100 allows thresholds above 0.98: two of four positives.
    assert true_accept_rate(false_rates, true_rates, 1e-2, 100) == 0.5
    # Ten allow thresholds above 0.89: the same two.
    assert true_accept_rate(false_rates, true_rates, 1e-1, 100) == 0.5
    assert true_accept_rate(false_rates, true_rates, 0.5, 100) == 0.75
    assert math.isnan(true_accept_rate(false_rates, true_rates, 1e-3, 100))


def test_all_scores_have_their_names() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(2000) % 2 == 0
    values = verification_scores(rng.normal(size=2000) + 3 * same, same, np.arange(2000) // 200)
    rates = [f"tar@far=1e-{power}" for power in (1, 2, 3, 4)]
    assert list(values) == ["accuracy", "accuracy_se", "auc", "eer", *rates]
    # Two normals three deviations apart: accuracy Φ(1.5), area Φ(3 / √2).
    assert values["accuracy"] == pytest.approx(0.933, abs=0.02)
    assert values["auc"] == pytest.approx(0.983, abs=0.01)
    assert values["eer"] == pytest.approx(0.067, abs=0.02)
    assert [math.isnan(value) for value in values.values()] == [False] * 7 + [True]


def test_pairs_of_one_kind_leave_the_curve_open() -> None:
    values = verification_scores(np.array([0.1, 0.9]), np.array([True, True]), np.array([0, 1]))
    # Whoever accepts all is right: that says nothing of a model.
    assert math.isnan(values["accuracy"])
    assert all(math.isnan(values[name]) for name in ("auc", "eer", "tar@far=1e-1"))


def test_a_threshold_for_a_false_accept_rate_lies_below_the_lowest_score_that_it_accepts() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    same = np.array([True, False, True, False, True, False, False])
    # Of four impostors one may pass: 0.8 does, 0.6 must not; the lowest score above it is 0.7.
    assert threshold_at(scores, same, 0.25) == pytest.approx(0.65)
    # None may, and the rate is less than one of four.
    assert math.isnan(threshold_at(scores, same, 0.24))
    # The two most similar pairs are equal impostors, of which one may pass.
    assert threshold_at(np.array([0.9, 0.9, 0.1]), np.array([False, False, True]), 0.5) == math.inf


@given(_BOTH_KINDS, st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.9]))
def test_a_threshold_for_a_rate_keeps_it_and_accepts_as_many_as_can_be(
    pairs: tuple[np.ndarray, np.ndarray], rate: float
) -> None:
    scores, same = pairs
    threshold = threshold_at(scores, same, rate)
    if math.isnan(threshold):
        assert (~same).sum() * rate < 1
        return
    done = decisions(scores, same, threshold)
    assert done["far"] <= rate + 1e-9
    assert 1 - done["frr"] == pytest.approx(true_accept_rate(*roc(scores, same), rate, int((~same).sum())))
    # Any lower one that decides otherwise lets too many through, or accepts nobody else.
    for lower in np.unique(scores[scores < threshold]):
        assert decisions(scores, same, lower)["far"] > rate


def test_rates_are_named_as_reports_do() -> None:
    assert [far_name(rate) for rate in (0.1, 1e-4, 0.05, 2.5e-3)] == ["far=1e-1", "far=1e-4", "far=5e-2", "far=2.5e-3"]
