from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtframe.data._schedule import SCHEDULES
from mtframe.recipe import TrainOptions

LENGTHS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), min_size=1)


def test_the_recipe_knows_the_schedules_there_are() -> None:
    assert set(get_args(TrainOptions.model_fields["schedule"].annotation)) == set(SCHEDULES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("joint", [{"a": 0, "b": 0}, {"a": 1, "b": 1}, {"a": 2, "b": 2}]),
        ("round-robin", [{"a": 0}, {"b": 0}, {"a": 1}, {"b": 1}, {"a": 2}]),
        ("epochs", [{"a": 0}, {"a": 1}, {"b": 0}, {"b": 1}, {"b": 2}, {"a": 2}, {"a": 3}, {"b": 3}]),
    ],
)
def test_who_trains_when(name: str, expected: list[dict[str, int]]) -> None:
    schedule = SCHEDULES[name]({"a": 2, "b": 3})
    assert [schedule.at(step) for step in range(len(expected))] == expected


@given(name=st.sampled_from(sorted(SCHEDULES)), lengths=LENGTHS, epochs=st.integers(1, 3))
def test_each_task_takes_its_batches_in_order_and_all_of_them_in_an_epoch(
    name: str, lengths: dict[str, int], epochs: int
) -> None:
    schedule = SCHEDULES[name](lengths)
    taken: dict[str, list[int]] = {task: [] for task in lengths}
    for step in range(epochs * schedule.steps_per_epoch):
        for task, number in schedule.at(step).items():
            taken[task].append(number)
    for task, numbers in taken.items():
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= epochs * lengths[task]
        if name == "epochs":
            assert len(numbers) == epochs * lengths[task]
    assert schedule.draws(epochs * schedule.steps_per_epoch) == {task: len(numbers) for task, numbers in taken.items()}
