from __future__ import annotations

import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError, RecipeError
from mtframe.metrics import GalleryThresholds, SizedThreshold
from mtframe_face import identification_scores as ranking
from mtframe_face.identification import FaceIdentification
from mtframe_face.identification_scores import (
    Searches,
    gallery_thresholds,
    identification_scores,
    identified,
    open_set_curve,
    threshold_at,
)
from mtframe_face.identities import Roles


def _searches(ranks: list[int], best: list[float], gallery: int = 20) -> Searches:
    return Searches(np.array(ranks), np.array(best), gallery)


def test_rates_by_hand() -> None:
    # Five known probes (ranks 1, 1, 1, 2, 7), ten unknown ones whose best scores are 0.1 to 1.0.
    searches = _searches([1, 1, 1, 2, 7] + [0] * 10, [0.95, 0.85, 0.2, 0.99, 0.99] + [n / 10 for n in range(1, 11)])
    values = identification_scores(searches)
    assert (values["rank-1"], values["rank-5"]) == pytest.approx((0.6, 0.8))
    # One of ten may be above: the second largest, 0.9, must be exceeded. 0.95 is; 0.99 is at rank 2 and 7.
    assert values["threshold@fpir=1e-1"] == pytest.approx(0.9)
    assert values["tpir@fpir=1e-1"] == pytest.approx(0.2)
    # A hundredth of ten is less than one.
    assert math.isnan(values["tpir@fpir=1e-2"])
    assert math.isnan(values["threshold@fpir=1e-2"])
    assert identified(searches, threshold_at(searches, 0.5)) == pytest.approx(0.4)
    assert identified(searches, threshold_at(searches, 1.0)) == pytest.approx(0.6)
    false, true = open_set_curve(searches)
    assert (false[-1], true[-1]) == pytest.approx((1.0, 0.6))
    assert np.interp(0.1, false, true) == pytest.approx(0.2)


def test_equal_scores_of_unknown_people_are_all_above_or_none() -> None:
    searches = _searches([1] + [0] * 10, [0.7] + [0.5] * 10)
    assert identified(searches, threshold_at(searches, 0.1)) == 1
    searches = _searches([1] + [0] * 10, [0.5] + [0.5] * 10)
    assert identified(searches, threshold_at(searches, 0.9)) == 0


def test_a_model_that_says_the_same_of_everybody_finds_nobody() -> None:
    same = np.ones((4, 1))
    searches = ranking.search(same, np.array([0, 1, 2, 9]), np.ones((3, 1)), np.array([0, 1, 2]))
    assert searches.rank.tolist() == [3, 3, 3, 0]


def test_what_cannot_be_told_is_nan() -> None:
    values = identification_scores(_searches([1, 2], [0.5, 0.5], gallery=5))
    assert values["rank-1"] == 0.5
    assert all(math.isnan(values[name]) for name in ("rank-5", "tpir@fpir=1e-1", "tpir@fpir=1e-2"))
    assert math.isnan(identification_scores(_searches([0], [0.5]))["rank-1"])
    assert [len(part) for part in open_set_curve(_searches([1], [0.5]))] == [0, 0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_scores_give_what_counting_one_by_one_gives(data: st.DataObject) -> None:
    """Few different scores, so that many are equal."""
    people = data.draw(st.integers(1, 7))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    probes = data.draw(st.integers(1, 25))
    identity = rng.integers(0, people + 3, probes)
    names = np.sort(rng.choice(people + 3, people, replace=False))
    scores = rng.integers(0, 5, (probes, people)) / 4
    # A gallery of unit axes: the similarities are the probes' own numbers.
    searches = ranking.search(scores, identity, np.eye(people), names)
    ranks, best = [], []
    for who, row in zip(identity, scores, strict=True):
        own = [row[g] for g in range(people) if names[g] == who]
        ranks.append(sum(score >= own[0] for score in row) if own else 0)
        best.append(max(row))
    assert searches.rank.tolist() == ranks
    known, unknown = [n for n in range(probes) if ranks[n]], [n for n in range(probes) if not ranks[n]]
    curve = ranking.cumulative_match(searches, people)
    for rank in range(1, people + 1):
        expected = np.mean([ranks[n] <= rank for n in known]) if known else math.nan
        np.testing.assert_equal(curve[rank - 1], expected)
    for rate in (0.1, 0.25, 0.5, 1.0):
        tpir = identified(searches, threshold_at(searches, rate))
        if not known or len(unknown) * rate < 1:
            assert math.isnan(tpir)
            continue
        # Every threshold that could matter: the most that one within the rate finds.
        allowed = [t for t in (-1, *best) if np.mean([best[n] > t for n in unknown]) <= rate]
        assert tpir == max(np.mean([ranks[n] == 1 and best[n] > t for n in known]) for t in allowed)
    false, true = open_set_curve(searches)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()


def test_probes_in_blocks_are_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    given_ = rng.normal(size=(50, 8)), rng.integers(0, 30, 50), rng.normal(size=(20, 8)), np.arange(20)
    whole = ranking.search(*given_)
    monkeypatch.setattr(ranking, "_BLOCK", 7)
    parts = ranking.search(*given_)
    assert whole.rank.tolist() == parts.rank.tolist()
    np.testing.assert_allclose(whole.best, parts.best)


def _metric(identity: list[int], gallery: list[int]) -> FaceIdentification:
    enrolled = np.isin(np.arange(len(identity)), gallery)
    return FaceIdentification(SimpleNamespace(roles=Roles(np.array(identity), enrolled)), DataInfo("identity", ()))


def _feed(metric: FaceIdentification, degrees: dict[int, float]) -> None:
    samples = [Sample(torch.empty(0), {}, (1, 1), index) for index in degrees]
    angles = [math.radians(angle) for angle in degrees.values()]
    metric.update([{"embedding": torch.tensor([2 * math.cos(a), 2 * math.sin(a)])} for a in angles], samples)


def test_a_template_is_the_mean_of_a_persons_images() -> None:
    # Person 0 at 0 and 40 degrees, so at 20; person 1 at 70. A probe of 0 at 44 is nearer to 20 than to 70.
    metric = _metric([0, 0, 1, 0, 1, 5], gallery=[0, 1, 2])
    _feed(metric, {0: 0, 1: 40, 2: 70, 3: 44, 4: 46, 5: 180})
    values = metric.compute()
    assert metric.primary == "rank-1"
    assert (values["rank-1"], values["enrolled"]) == (1.0, 2)
    assert (values["known_probes"], values["unknown_probes"]) == (2, 1)
    searches = metric.searches()
    np.testing.assert_allclose(searches.best, np.cos(np.radians([24, 24, 110])), atol=1e-6)


def test_images_that_could_not_be_read_leave_their_roles_empty() -> None:
    metric = _metric([0, 0, 1, 1], gallery=[0, 2])
    _feed(metric, {0: 0, 1: 5, 3: 90})
    # Nothing is enrolled of person 1, who thus is unknown.
    values = metric.compute()
    assert (values["enrolled"], values["known_probes"], values["unknown_probes"]) == (1, 1, 1)
    metric.reset()
    with pytest.raises(DataError, match="no image was embedded"):
        metric.compute()
    _feed(metric, {1: 5, 3: 90})
    with pytest.raises(DataError, match="0 images of the gallery and 2 probes were embedded; both are needed"):
        metric.compute()


def test_merging_two_processes_is_as_one() -> None:
    whole, left, right = (_metric([0, 0, 1, 1, 2], gallery=[0, 2]) for _ in range(3))
    angles = {0: 0.0, 1: 10.0, 2: 90.0, 3: 30.0, 4: 200.0}
    _feed(whole, angles)
    _feed(left, {index: angles[index] for index in (0, 3)})
    _feed(right, {index: angles[index] for index in (1, 2, 4)})
    left.merge(right)
    np.testing.assert_equal(left.compute(), whole.compute())


def test_curves_are_in_the_details() -> None:
    metric = _metric([0, 0, 1, 1, 2], gallery=[0, 2])
    _feed(metric, {0: 0.0, 1: 10.0, 2: 90.0, 3: 30.0, 4: 200.0})
    cmc, open_set = metric.details()
    assert (cmc.name, open_set.name) == ("cmc", "tpir-fpir")
    assert cmc.lines == {"known probes": ([1, 2], [0.5, 1.0])}


def test_a_split_without_roles_is_refused() -> None:
    with pytest.raises(DataError, match="face-identification needs a gallery and probes; this split has none"):
        FaceIdentification(SimpleNamespace(roles=None))


def test_roles_that_find_nobody_are_refused_before_anything_is_trained() -> None:
    for gallery, enrolled in ([], 0), ([0, 1], 1):
        with pytest.raises(DataError, match=rf"of the 2 people .* {enrolled} are enrolled.*'gallery'.* has 2 at most"):
            _metric([0, 0, 1, 1], gallery)


@pytest.mark.parametrize("enrolled", [1, 2])
def test_a_model_that_says_the_same_of_all_finds_nobody_whatever_sums_round_to(enrolled: int) -> None:
    vector = np.random.default_rng(0).normal(size=128)
    vector /= np.linalg.norm(vector)
    # Templates of one image and of several: their sums round differently.
    people = np.concatenate([np.arange(33), *[np.arange(16)] * (enrolled - 1)])
    gallery, names = ranking.templates(np.tile(vector, (len(people), 1)), people)
    found = ranking.search(np.tile(vector, (77, 1)), np.arange(77) % 40, gallery, names)
    assert set(found.rank.tolist()) == {0, 33}
    assert len(set(found.best.tolist())) == 1


def false_positives(scores: np.ndarray, own: np.ndarray, size: int, threshold: float) -> float:
    """FPIR over all galleries of so many people, one by one."""
    rates = []
    for row, mate in zip(scores, own, strict=True):
        strangers = [score for place, score in enumerate(row) if place != mate]
        rates.append(np.mean([max(some) >= threshold for some in combinations(strangers, size)]))
    return float(np.mean(rates))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_gallery_thresholds_are_the_lowest_that_keep_the_rate_in_all_galleries(data: st.DataObject) -> None:
    probes, people = data.draw(st.integers(4, 8)), data.draw(st.integers(2, 6))
    # Few values, so that similarities are equal.
    scores = np.array(data.draw(st.lists(st.integers(0, 9), min_size=probes * people, max_size=probes * people)))
    scores = scores.reshape(probes, people) / 10
    own = np.array(data.draw(st.lists(st.integers(-1, people - 1), min_size=probes, max_size=probes)))
    found = gallery_thresholds(scores, own, 0.25)
    assert [size for size, _ in found] == sorted({size for size, _ in found})
    assert [value for _, value in found] == sorted(value for _, value in found)
    cuts = np.unique(scores[np.arange(people) != own[:, None]])
    for size, value in found:
        assert false_positives(scores, own, size, value) <= 0.25 + 1e-9
        # The cut below lets more through.
        assert false_positives(scores, own, size, cuts[cuts < value][-1]) > 0.25


def test_gallery_thresholds_by_hand() -> None:
    # Four strangers and three people: of 12 comparisons one is above 0.5, so among one person 1/12 of them is taken.
    scores = np.array([[0.9, 0.1, 0.1], [0.1, 0.5, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]])
    nobody = np.full(4, -1)
    # One of 4 probes may have a hit: of all three people 0.9 is one, and 0.5 would be the second.
    assert gallery_thresholds(scores, nobody, 0.25) == [
        (1, pytest.approx(0.3)),
        (2, pytest.approx(0.7)),
        (3, pytest.approx(0.7)),
    ]
    # That the first is of the first person is no false one.
    assert gallery_thresholds(scores, np.array([0, -1, -1, -1]), 0.25)[-1] == (2, pytest.approx(0.3))
    assert gallery_thresholds(scores, nobody, 0.2) == []


def test_more_people_ask_for_more_and_the_metric_says_how_much() -> None:
    people, rng = 40, np.random.default_rng(0)
    identity = np.repeat(np.arange(people), 4)
    # Of the last ten nobody is enrolled.
    gallery = (np.arange(4 * people) % 4 == 0) & (identity < 30)
    metric = FaceIdentification(SimpleNamespace(roles=Roles(identity, gallery)), fpir=0.05)
    centres = rng.normal(size=(people, 8))
    for index, who in enumerate(identity.tolist()):
        embedding = torch.from_numpy(centres[who] + rng.normal(size=8))
        metric.update([{"embedding": embedding}], [Sample(torch.empty(0), {}, (8, 8), index)])
    metric.compute()
    kept = metric.gallery_thresholds()
    assert (kept.chosen, list(kept.values)) == ("fpir=5e-2", ["fpir=1e-1", "fpir=1e-2", "fpir=5e-2"])
    sizes = [one.size for one in kept.values["fpir=5e-2"]]
    assert sizes == [1, 2, 3, 5, 7, 10, 15, 20, 29]
    assert kept.data == "130 probes of 30 people"
    values = [one.value for one in kept.values["fpir=5e-2"]]
    assert values == sorted(values)
    assert values[0] < values[-1]
    # As all 30 are enrolled here, a little more than one in twenty.
    done = metric.scores_with(kept)
    assert done["threshold@kept-gallery"] == values[-1]
    assert done["fpir@kept"] <= 0.1
    assert 0 < done["tpir@kept"] < 1
    assert metric.scores_with(GalleryThresholds("fpir=1e-3", {}, "")) == {}


def test_a_gallery_takes_the_threshold_of_the_next_larger_one() -> None:
    kept = GalleryThresholds("a", {"a": [SizedThreshold(2, 0.25), SizedThreshold(10, 0.5)], "b": []}, "")
    assert [kept.value(size) for size in (1, 2, 3, 10, 11)] == [0.25, 0.25, 0.5, 0.5, 0.5]
    assert kept.value(1, "b") is kept.value(1, "c") is None


@pytest.mark.parametrize("fpir", [0, 1, math.nan])
def test_a_rate_of_all_or_nothing_is_refused(fpir: float) -> None:
    with pytest.raises(RecipeError, match=f"fpir: must be above 0 and below 1, got {fpir}"):
        FaceIdentification(SimpleNamespace(roles=Roles(np.array([0, 0]), np.array([True, False]))), fpir=fpir)
