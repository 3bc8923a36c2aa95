"""Groups and branches, from affinities and cosines that are given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtframe.affinity import Affinity, Means, best_groupings, choose
from mtframe.affinity._student import quantile
from mtframe.errors import RecipeError


def exactly(values: Tensor) -> Means:
    return Means(values, torch.zeros_like(values), (values < 0).double(), torch.full(values.shape, 10))


def known(gains: list[list[float]], cosines: dict[str, Tensor] | None = None) -> Affinity:
    tasks = tuple("abcdefghijklmnop"[: len(gains)])
    cosines = cosines or {"all": torch.zeros(len(gains), len(gains))}
    means = {stage: exactly(values.double()) for stage, values in cosines.items()}
    return Affinity(tasks, 10, exactly(torch.tensor(gains, dtype=torch.float64)), means)


def covers(count: int, networks: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to have so many sets of tasks with every task in one of them at least."""
    sets = [s for size in range(1, count + 1) for s in itertools.combinations(range(count), size)]
    for chosen in itertools.combinations(sets, networks):
        if {task for members in chosen for task in members} == set(range(count)):
            yield chosen


def score(gains: list[list[float]], cover: tuple[tuple[int, ...], ...]) -> float:
    """Each task is taken from the network in which it is best."""
    return sum(
        max(sum(gains[i][j] for i in members if i != j) for members in cover if j in members)
        for j in range(len(gains))
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(
    st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=n, max_size=n)))  # fmt: skip
def test_groups_are_the_best_of_all_covers(gains: list[list[float]]) -> None:
    best = -torch.inf
    for networks, grouping in enumerate(best_groupings(known(gains)), 1):
        # With more networks than needed, one may be there twice, which no cover of different sets has.
        best = max([best, *(score(gains, cover) for cover in covers(len(gains), networks))])
        assert grouping.score == best
        assert len(grouping.groups) <= networks
        assert sorted(task for group in grouping.groups for task in group.tasks) == list("abcd"[: len(gains)])


def test_a_duplicate_is_grouped_and_an_adversary_kept_apart() -> None:
    grouping = choose(best_groupings(known([[9, 5, -6], [5, 9, -6], [-7, -7, 9]])))
    assert [group.tasks for group in grouping.groups] == [("a", "b"), ("c",)]
    assert grouping.score == 10


def test_tasks_that_do_nothing_to_each_other_take_one_network() -> None:
    groupings = best_groupings(known([[9, 0, 0], [0, 9, 0], [0, 0, 9]]))
    assert [group.tasks for group in choose(groupings).groups] == [("a", "b", "c")]
    assert choose(groupings, networks=3) is groupings[0]


@pytest.mark.parametrize(("count", "expected"), [(10, 8), (5, 0)], ids=["4.09 errors", "6.62 errors"])
def test_what_may_differ_from_0_by_chance_counts_0(count: int, expected: float) -> None:
    mean = torch.tensor([[9.0, -1, 2], [-1, 9, 2], [2, 2, 9]], dtype=torch.float64)
    means = Means(mean, torch.full_like(mean, 0.4), mean, torch.full(mean.shape, count))
    found = best_groupings(Affinity(("a", "b", "c"), count, means, {"all": exactly(mean)}))
    assert found[0].score == expected


# scipy.stats.t.isf(math.erfc(3 / math.sqrt(2)) / 2, count - 1)
@pytest.mark.parametrize(("count", "expected"), [
    (1, torch.inf), (2, 235.801498), (3, 19.206744), (4, 9.218940), (5, 6.620206), (6, 5.507080), (10, 4.094255),
    (40, 3.204175), (200, 3.038128), (2001, 3.003754),
])  # fmt: skip
def test_standard_errors_are_students(count: int, expected: float) -> None:
    assert quantile(count) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_noise_of_few_steps_is_hardly_ever_taken_for_a_difference(count: int) -> None:
    noise_NTT = torch.randn(count, 200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # 0.27 % of 40,000 are 108, with a standard deviation of 10.
    assert Means.of(noise_NTT).certain.count_nonzero() == pytest.approx(108, abs=40)


def test_a_task_helps_where_another_network_is_for_it() -> None:
    # c gives to a and b, but loses by both.
    grouping = choose(best_groupings(known([[9, 1, -8], [1, 9, -8], [3, 3, 9]])))
    assert [(group.tasks, group.helpers) for group in grouping.groups] == [(("a", "b"), ("c",)), (("c",), ())]
    assert grouping.score == 8


def test_a_further_network_must_bring_a_tenth() -> None:
    groupings = best_groupings(known([[0, 100, -1], [100, 0, -1], [0, 0, 0]]))
    assert [grouping.score for grouping in groupings] == [198, 200, 200]
    assert choose(groupings) is groupings[0]
    assert [group.tasks for group in choose(groupings, networks=2).groups] == [("a", "b"), ("c",)]


@pytest.mark.parametrize(("second", "third", "shared", "opposed"), [
    (0.1, -0.1, 2, ("3", "a", "b")),
    (-0.2, 0.1, 1, ("2", "a", "b")),
    (0.1, 0.2, 3, None),
])  # fmt: skip
def test_tasks_share_up_to_the_first_stage_in_which_they_are_opposed(
    second: float, third: float, shared: int, opposed: tuple[str, ...] | None
) -> None:
    cosines = {
        stage: torch.tensor([[1.0, value], [value, 1.0]])
        for stage, value in (("all", -1), ("1", 0.3), ("2", second), ("3", third), ("rest", -1))
    }
    (group,) = best_groupings(known([[1, 1], [1, 1]], cosines))[0].groups
    assert (group.shared, group.stages) == (shared, 3)
    found = group.opposed and (group.opposed.stage, group.opposed.task, group.opposed.other)
    assert found == opposed


def test_too_many_tasks_are_an_error() -> None:
    with pytest.raises(RecipeError, match="groups are searched among 12 tasks at most, here are 13"):
        best_groupings(known([[0.0] * 13] * 13))


def test_eight_tasks_are_searched_at_once() -> None:
    gains = [[1.0 if i // 2 == j // 2 else -1.0 for j in range(8)] for i in range(8)]
    grouping = choose(best_groupings(known(gains)))
    assert [group.tasks for group in grouping.groups] == [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]


def test_means_are_over_what_was_measured() -> None:
    nan = torch.nan
    values = torch.tensor([[[1.0, nan], [2.0, -1.0]], [[3.0, nan], [nan, -2.0]], [[8.0, nan], [nan, 6.0]]]).double()
    means = Means.of(values)
    torch.testing.assert_close(means.mean, torch.tensor([[4.0, nan], [2.0, 1.0]]).double(), equal_nan=True)
    # Of 1, 3, 8: deviations 9 + 1 + 16 over 2, over 3.
    assert means.error[0, 0].item() == pytest.approx((26 / 2 / 3) ** 0.5)
    assert means.error[1, 0].isnan()
    assert means.negative[1, 1].item() == pytest.approx(2 / 3)
    assert means.count.tolist() == [[3, 0], [1, 3]]
    assert means.certain[1].tolist() == [0, 0]
