from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
    top_k_accuracy_score,
)

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError
from mtframe_classification.metrics import Classification, MultiLabel, Regression
from mtframe_classification.scores import average_precision, reliability

NAN = math.nan
COUNT, CLASSES = 300, 8
NAMES = tuple("abcdefgh")


def _feed(metric: Any, predicted: np.ndarray, true: np.ndarray, order: Any = None) -> Any:
    """Feeds rows in an order, in batches of seven."""
    key, target = {
        "label": ("probabilities", "label"), "labels": ("probabilities", "labels"), "value": ("values", "value"),
    }[metric.target]  # fmt: skip
    for batch in np.array_split(np.arange(len(true)) if order is None else order, max(1, len(true) // 7)):
        predictions = [{key: torch.tensor(predicted[index], dtype=torch.float32)} for index in batch]
        samples = [Sample(torch.empty(0), {target: torch.tensor(true[index])}, (1, 1), int(index)) for index in batch]
        metric.update(predictions, samples)
    return metric


def _one_label() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=COUNT)
    logits = rng.normal(size=(COUNT, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    probabilities = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    return probabilities.astype(np.float32), labels


def _several() -> tuple[np.ndarray, np.ndarray]:
    """A quarter unknown, tied scores, and a class without a positive."""
    rng = np.random.default_rng(1)
    labels = (rng.random((COUNT, CLASSES)) < 0.3).astype(np.float32)
    scores = np.round(0.5 * labels + rng.random((COUNT, CLASSES)), 1) / 1.5
    labels[rng.random(labels.shape) < 0.25] = NAN
    labels[:, 3] = np.where(np.isnan(labels[:, 3]), NAN, 0)
    return scores.astype(np.float32), labels


def _numbers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(COUNT, 3)) * [1, 100, 0] + [0, 5, 4]
    predicted = values + rng.normal(size=values.shape) * [0.5, 20, 0.1]
    values[rng.random(values.shape) < 0.25] = NAN
    return predicted.astype(np.float32), values.astype(np.float32)


METRICS: list[tuple[Callable[[], Any], Callable[[], tuple[np.ndarray, np.ndarray]]]] = [
    (lambda: Classification(DataInfo("label", NAMES)), _one_label),
    (lambda: MultiLabel(DataInfo("labels", NAMES)), _several),
    (lambda: Regression(DataInfo("value", ("x", "y", "z"))), _numbers),
]
every = pytest.mark.parametrize(("make", "data"), METRICS, ids=["classification", "multi-label", "regression"])


def test_accuracy_and_likelihood_are_scikit_learns() -> None:
    probabilities, labels = _one_label()
    values = _feed(Classification(DataInfo("label", NAMES)), probabilities, labels).compute()
    assert values["top1"] == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert values["top5"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5))
    normalised = probabilities.astype(np.float64) / probabilities.sum(1, keepdims=True, dtype=np.float64)
    assert values["nll"] == pytest.approx(log_loss(labels, normalised), rel=1e-5)
    assert 0.5 < values["top1"] < values["top5"] < 1


def test_calibration_error_is_that_of_scikit_learns_curve() -> None:
    probabilities, labels = _one_label()
    metric = _feed(Classification(DataInfo("label", NAMES)), probabilities, labels)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    weights = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    expected = (weights[weights > 0] * np.abs(accuracy - mean)).sum() / COUNT
    assert metric.compute()["ece"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0.02


def test_calibration_error_by_hand() -> None:
    # Bins of a tenth: (0.7, 0.8] holds 0.75 and 0.8, one of them right: |1/2 - 0.775|; (0.8, 0.9] holds 0.81, right.
    bins = reliability(np.array([0.75, 0.8, 0.81]), np.array([True, False, True]), bins=10)
    assert bins.error == pytest.approx((2 * 0.275 + 0.19) / 3)
    assert bins.count.tolist() == [2, 1]
    assert reliability(np.array([1.0, 1.0]), np.array([True, True])).error == 0


def test_confusion_is_scikit_learns() -> None:
    probabilities, labels = _one_label()
    matrix, curves = _feed(Classification(DataInfo("label", NAMES)), probabilities, labels).details()
    assert (matrix.name, matrix.row_labels, matrix.column_labels) == ("confusion", NAMES, NAMES)
    np.testing.assert_array_equal(matrix.values, confusion_matrix(labels, probabilities.argmax(1)))
    assert (curves.name, list(curves.lines)) == ("reliability", ["model", "perfect"])
    confidence, accuracy = curves.lines["model"]
    assert len(confidence) == len(accuracy) <= 15


def test_few_classes_have_no_top_five_and_ties_are_no_luck() -> None:
    metric = Classification(DataInfo("label", ("a", "b")))
    even = np.full((4, 2), 0.5, np.float32)
    values = _feed(metric, even, np.array([0, 1, 1, 1])).compute()
    assert values["top1"] == 0.25, "equal probabilities predict the first class"
    assert math.isnan(values["top5"])
    wide = Classification(DataInfo("label", NAMES))
    values = _feed(wide, np.full((8, 8), 1 / 8, np.float32), np.arange(8)).compute()
    assert (values["top1"], values["top5"]) == (1 / 8, 5 / 8)


def test_a_probability_of_nothing_is_not_infinitely_wrong() -> None:
    metric = _feed(Classification(DataInfo("label", ("a", "b"))), np.array([[1.0, 0.0]]), np.array([1]))
    assert 80 < metric.compute()["nll"] < 90


def test_average_precision_is_scikit_learns() -> None:
    scores, labels = _several()
    metric = _feed(MultiLabel(DataInfo("labels", NAMES)), scores, labels)
    known = ~np.isnan(labels)
    learned = [c for c in range(CLASSES) if c != 3]
    expected = {NAMES[c]: average_precision_score(labels[known[:, c], c], scores[known[:, c], c]) for c in learned}
    values = metric.compute()
    assert values["mAP"] == pytest.approx(np.mean(list(expected.values())))
    (bars,) = metric.details()
    assert bars.name == "per-class-ap"
    assert math.isnan(bars.values["d"]), "without a positive"
    assert {name: value for name, value in bars.values.items() if name != "d"} == pytest.approx(expected)


def test_f1_is_scikit_learns() -> None:
    scores, labels = _several()
    values = _feed(MultiLabel(DataInfo("labels", NAMES)), scores, labels).compute()
    known, predicted = ~np.isnan(labels), scores > 0.5
    assert values["f1_micro"] == pytest.approx(f1_score(labels[known], predicted[known]))
    single = [f1_score(labels[known[:, c], c], predicted[known[:, c], c]) for c in range(CLASSES) if c != 3]
    assert values["f1_macro"] == pytest.approx(np.mean(single))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_average_precision_of_any_scores(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([pair[0] for pair in pairs]) / 4, np.array([pair[1] for pair in pairs])
    found = average_precision(scores, positive)
    if positive.any():
        assert found == pytest.approx(average_precision_score(positive, scores))
    else:
        assert math.isnan(found)


def test_no_positive_at_all_is_not_resolved() -> None:
    metric = _feed(MultiLabel(DataInfo("labels", ("a", "b"))), np.full((3, 2), 0.4), np.array([[0.0, NAN]] * 3))
    assert all(math.isnan(value) for value in metric.compute().values())
    assert all(math.isnan(value) for value in metric.details()[0].values.values())


def test_errors_of_numbers_are_scikit_learns() -> None:
    predicted, true = _numbers()
    metric = _feed(Regression(DataInfo("value", ("x", "y", "z"))), predicted, true)
    known = ~np.isnan(true)
    pairs = [(true[known[:, k], k], predicted[known[:, k], k]) for k in range(3)]
    values = metric.compute()
    assert values["mae"] == pytest.approx(np.mean([mean_absolute_error(*pair) for pair in pairs]))
    assert values["rmse"] == pytest.approx(np.mean([root_mean_squared_error(*pair) for pair in pairs]))
    # The third number is 4 in every image.
    assert values["r2"] == pytest.approx(np.mean([r2_score(*pair) for pair in pairs[:2]]))
    errors, fits = metric.details()
    assert (errors.name, list(errors.values)) == ("per-value-mae", ["x", "y", "z"])
    assert (fits.name, list(fits.values)) == ("per-value-r2", ["x", "y", "z"])
    assert math.isnan(fits.values["z"])
    assert fits.values["y"] == pytest.approx(r2_score(*pairs[1]))


@every
def test_order_repetition_and_processes_do_not_matter(make: Callable[[], Any], data: Callable[[], Any]) -> None:
    predicted, true = data()
    whole = _feed(make(), predicted, true).compute()
    order = np.random.default_rng(5).permutation(COUNT)
    assert _feed(make(), predicted, true, order).compute() == whole
    assert _feed(make(), predicted, true, [*order, *order[:20]]).compute() == whole
    one, other = _feed(make(), predicted, true, order[:100]), _feed(make(), predicted, true, order[90:])
    one.merge(other)
    assert one.compute() == whole
    one.reset()
    with pytest.raises(DataError, match="no image with a known label was predicted"):
        one.compute()


@every
def test_unknown_images_are_left_out(make: Callable[[], Any], data: Callable[[], Any]) -> None:
    predicted, true = data()
    expected = _feed(make(), predicted[:200], true[:200]).compute()
    true[200:] = -1 if true.dtype.kind == "i" else NAN
    assert _feed(make(), predicted, true).compute() == expected


@every
def test_the_primary_value_is_there(make: Callable[[], Any], data: Callable[[], Any]) -> None:
    metric = _feed(make(), *data())
    assert metric.primary in metric.compute()
    assert metric.higher_is_better == (metric.primary != "mae")


@every
def test_predictions_that_are_no_numbers_are_refused(make: Callable[[], Any], data: Callable[[], Any]) -> None:
    predicted, true = data()
    predicted[3, 0] = np.inf
    with pytest.raises(DataError, match="the prediction for 3 is not of finite numbers"):
        _feed(make(), predicted, true)


def test_another_splits_classes_are_refused() -> None:
    split = SimpleNamespace(info=DataInfo("label", ("a", "x", "c")))
    with pytest.raises(DataError, match="3 classes, the model was trained on 3; number 1 is 'x' here and 'b' there"):
        Classification(DataInfo("label", ("a", "b", "c")), split)
    with pytest.raises(DataError, match=r"multi-label: this split has 3 classes, .* trained on 4\. Both need"):
        MultiLabel(DataInfo("labels", ("a", "x", "c", "d")), split)
    Regression(DataInfo("value", ("a", "x", "c")), split)
