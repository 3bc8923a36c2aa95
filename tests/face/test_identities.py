"""Orders, pairs and roles that data sets of identities draw."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe_face.identities import Texts, balanced_order, draw_pairs, enrol, epoch_order, grouped_order


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 99))
def test_an_order_has_every_image_once_and_whole_groups_first(people: list[int], each: int, seed: int) -> None:
    labels = np.array(people)
    order = grouped_order(labels, each, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    if each == 1:
        return
    whole = sum(count // each for count in Counter(people).values())
    groups = labels[order][: whole * each].reshape(whole, each)
    assert (groups == groups[:, :1]).all()
    # What is left of each person comes last, in a row too.
    rest = labels[order][whole * each :]
    assert np.count_nonzero(np.diff(rest)) + (len(rest) > 0) == len(set(rest.tolist()))


def test_orders_differ_between_epochs_and_mix_images_and_people() -> None:
    labels = np.repeat(np.arange(20), 8)
    one, two = (grouped_order(labels, 4, np.random.default_rng(seed)) for seed in (1, 2))
    assert (one != two).mean() > 0.9
    assert len({frozenset(group) for group in one.reshape(-1, 4).tolist()}) == 40
    assert set(map(frozenset, one.reshape(-1, 4).tolist())) != set(map(frozenset, two.reshape(-1, 4).tolist()))
    # A person's two groups seldom meet.
    assert np.mean(np.diff(labels[one][::4]) == 0) < 0.3


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 99))
def test_a_balanced_order_shows_everybody_equally_often(people: list[int], each: int, seed: int) -> None:
    labels = np.array(people)
    order = balanced_order(labels, each, np.random.default_rng(seed))
    assert (len(order), order.min() >= 0, order.max() < len(labels)) == (len(labels), True, True)
    whole = len(order) // each
    groups = labels[order][: whole * each].reshape(whole, each)
    assert (groups == groups[:, :1]).all()
    times = Counter(groups[:, 0].tolist())
    for start in range(0, whole, len(set(people))):
        # Permutations of the people, one after the other.
        some = groups[start : start + len(set(people)), 0]
        assert len(set(some.tolist())) == len(some)
    assert max(times.values(), default=0) - min((times[name] for name in set(people)), default=0) <= 1
    images = order[: whole * each].reshape(whole, each)
    for name, row in zip(groups[:, 0], images, strict=True):
        # As many different ones as there are.
        assert len(set(row.tolist())) == min(each, people.count(name))


def test_a_balanced_order_goes_on_with_other_images_of_a_person() -> None:
    labels = np.array([0] * 90 + [1] * 6 + [2] * 6)
    order = epoch_order(labels, 3, True, np.random.default_rng(3))
    # 34 groups: eleven of each person, and one more of one.
    assert sorted(np.bincount(labels[order]).tolist()) == [33, 33, 36]
    # Of the person with 90 images, none comes twice; the others' each about equally often.
    assert np.bincount(order[labels[order] == 0]).max() == 1
    times = np.bincount(order[labels[order] == 1])[90:96]
    assert times.max() - times.min() <= 1
    assert (epoch_order(labels, 3, False, np.random.default_rng(3)) != order).any()


def _as_set(pairs: object, same: bool) -> set[tuple[int, int]]:
    chosen = pairs.same == same  # type: ignore[attr-defined]
    return set(zip(pairs.first[chosen].tolist(), pairs.second[chosen].tolist(), strict=True))  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 99))
def test_pairs_are_different_and_as_many_of_both_sorts(images: list[int], count: int, seed: int) -> None:
    identity = np.repeat(np.arange(len(images)), images)
    everything = [(a, b) for a in range(len(identity)) for b in range(a + 1, len(identity))]
    pairs = draw_pairs(identity, count, np.random.default_rng(seed))
    possible = {
        same: {pair for pair in everything if (identity[pair[0]] == identity[pair[1]]) == same}
        for same in (True, False)
    }
    for same in (True, False):
        drawn = _as_set(pairs, same)
        assert drawn <= possible[same]
        assert len(drawn) == (pairs.same == same).sum() == min(count, *map(len, possible.values()))


def test_all_pairs_are_equally_likely_and_folds_are_even() -> None:
    identity = np.repeat(np.arange(3), [4, 1, 2])
    seen: Counter[tuple[int, int]] = Counter()
    for seed in range(600):
        seen.update(_as_set(draw_pairs(identity, 2, np.random.default_rng(seed)), True))
    # 2 of 7 pairs: each 171 times of 600, standard deviation 11.
    assert len(seen) == 7
    assert all(120 < count < 225 for count in seen.values())
    pairs = draw_pairs(np.repeat(np.arange(30), 10), 200, np.random.default_rng(0))
    assert np.bincount(pairs.fold[pairs.same]).tolist() == np.bincount(pairs.fold[~pairs.same]).tolist() == [20] * 10


def test_the_first_images_are_enrolled_where_a_probe_is_left() -> None:
    identity = np.array([0, 1, 0, 2, 1, 0, 3, 3, 3])
    assert enrol(identity, 1).gallery.tolist() == [True, True, False, False, False, False, True, False, False]
    assert enrol(identity, 2).gallery.tolist() == [True, False, True, False, False, False, True, True, False]
    roles = enrol(identity, 1, unknown=np.array([3]))
    assert roles.gallery.nonzero()[0].tolist() == [0, 1]
    assert roles.identity.tolist() == identity.tolist()


@given(st.lists(st.text(max_size=6)))
def test_texts_come_back_as_they_were(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    kept = Texts(texts)
    assert [kept[index] for index in range(len(kept))] == texts
