from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError
from mtframe_face.pairs import Pairs
from mtframe_face.verification import FaceVerification


def _metric(pairs: list[tuple[int, int, bool, int]]) -> FaceVerification:
    first, second, same, fold = (np.array(column) for column in zip(*pairs, strict=True))
    return FaceVerification(SimpleNamespace(pairs=Pairs(first, second, same, fold)), DataInfo("identity", ()))


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
