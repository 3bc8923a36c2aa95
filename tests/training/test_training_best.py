"""Which checkpoints are the best: by task, and of all tasks by the gain that docs/training.md defines."""

from __future__ import annotations

import math

import pytest

from mtframe.training._best import Bests, better

UP = {"a": True, "b": True}


def test_the_first_evaluation_is_the_best_of_all() -> None:
    bests = Bests()
    assert bests.update(5, {"a": 0.5, "b": 0.2}, UP) == (["best_a", "best_b", "best"], 0.0)
    assert bests.plain() == {
        "scores": {"a": 0.5, "b": 0.2}, "tasks": {"a": 0.5, "b": 0.2},
        "steps": {"best_a": 5, "best_b": 5, "best": 5},
    }  # fmt: skip


def test_best_is_of_least_sacrifice_and_the_first_of_equals() -> None:
    bests = Bests()
    bests.update(1, {"a": 0.5, "b": 0.5}, UP)
    # a gains a tenth and b loses a fifth: against the new bests, -0.1 here and -1/11 / 2 for what is the best.
    names, gain = bests.update(2, {"a": 0.55, "b": 0.4}, UP)
    assert (names, gain) == (["best_a"], pytest.approx(-0.1))
    names, gain = bests.update(3, {"a": 0.55, "b": 0.5}, UP)
    assert (names, gain) == (["best"], 0.0)
    assert bests.update(4, {"a": 0.55, "b": 0.5}, UP) == ([], 0.0)
    assert bests.steps == {"best_a": 2, "best_b": 1, "best": 3}


def test_less_may_be_better() -> None:
    bests = Bests()
    bests.update(1, {"a": 2.0}, {"a": False})
    assert bests.update(2, {"a": 3.0}, {"a": False}) == ([], pytest.approx(-0.5))
    assert bests.update(3, {"a": 1.0}, {"a": False}) == (["best_a", "best"], 0.0)


def test_what_no_step_has_trained_yields_to_anything() -> None:
    bests = Bests()
    bests.update(0, {"kept": 0.9, "new": 0.5}, {"kept": True, "new": True})
    names, gain = bests.update(10, {"kept": 0.5, "new": 0.5}, {"kept": True, "new": True})
    assert names == ["best"]
    assert gain < 0
    assert bests.steps == {"best_kept": 0, "best_new": 0, "best": 10}


def test_a_score_that_cannot_be_resolved_beats_nothing_and_is_beaten_by_anything() -> None:
    nan = math.nan
    assert better(0.1, nan, higher_is_better=True)
    assert better(0.1, nan, higher_is_better=False)
    assert not better(nan, 0.1, higher_is_better=True)
    assert not better(nan, nan, higher_is_better=True)
    assert not better(0.1, 0.1, higher_is_better=True)


def test_what_nothing_ranks_follows_the_latest() -> None:
    bests, nan = Bests(), math.nan
    for step in (1, 2):
        assert bests.update(step, {"a": nan, "b": nan}, UP)[0] == ["best_a", "best_b", "best"]
    # Once one of them is told, the other has no say, and what was not told yields to it.
    assert bests.update(3, {"a": nan, "b": 0.5}, UP)[0] == ["best_a", "best_b", "best"]
    assert bests.update(4, {"a": nan, "b": 0.4}, UP)[0] == ["best_a"]
    assert bests.update(5, {"a": nan, "b": nan}, UP)[0] == ["best_a"]
    assert bests.steps == {"best_a": 5, "best_b": 3, "best": 3}
