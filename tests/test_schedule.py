from __future__ import annotations

import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.kinds import Schedule
from mtframe.options import construct
from mtframe.recipe import Recipe
from mtframe.registry import resolve
from mtframe.schedule import Epochs, Joint, Proportional, Temperature, turns
from toy import toy_recipe

NAMES = ("joint", "round-robin", "epochs", "proportional", "temperature")
LENGTHS = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 30), min_size=1)


def made(name: str, lengths: dict[str, int], every: dict[str, int] | None = None, **options: Any) -> Schedule:
    """The built-in schedule of a name."""
    wired = {"lengths": lengths, "every": every or dict.fromkeys(lengths, 1)}
    schedule: Schedule = construct(resolve("schedule", name).component, "schedule", options, wired, name)
    return schedule


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Schedule, dict[str, int]]:
    """Any schedule, with the lengths of its tasks."""
    lengths, name = draw(LENGTHS), draw(st.sampled_from(NAMES))
    options = {"temperature": draw(st.sampled_from([1.0, 1.5, 3.3, 5.0, 100.0]))} if name == "temperature" else {}
    every = {task: draw(st.integers(1, 4)) for task in [*lengths][1:]}
    return made(name, lengths, every, **options), lengths


def who(schedule: Schedule, steps: int) -> str:
    """The tasks of the first steps, in words of their letters."""
    return " ".join("".join(turns(schedule, step)) for step in range(steps))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("joint", [{"a": 0, "b": 0}, {"a": 1, "b": 1}, {"a": 2, "b": 2}]),
        ("round-robin", [{"a": 0}, {"b": 0}, {"a": 1}, {"b": 1}, {"a": 2}]),
        ("epochs", [{"a": 0}, {"a": 1}, {"b": 0}, {"b": 1}, {"b": 2}, {"a": 2}, {"a": 3}, {"b": 3}]),
        # Due at 1/4 and 3/4 of the epoch, and at 1/6, 1/2 and 5/6.
        ("proportional", [{"b": 0}, {"a": 0}, {"b": 1}, {"a": 1}, {"b": 2}, {"b": 3}, {"a": 2}, {"b": 4}]),
    ],
)
def test_who_trains_when(name: str, expected: list[dict[str, int]]) -> None:
    schedule = made(name, {"a": 2, "b": 3})
    assert [turns(schedule, step) for step in range(len(expected))] == expected


def test_a_task_takes_part_in_every_kth_joint_step() -> None:
    schedule = Joint({"a": 4, "b": 2, "c": 1}, every={"b": 3, "c": 2})
    assert who(schedule, 7) == "abc a ac ab ac a abc"
    # The two batches of b take six steps.
    assert schedule.steps_per_epoch == 6
    assert turns(schedule, 6) == {"a": 6, "b": 2, "c": 3}


def test_a_temperature_takes_the_root_of_the_lengths() -> None:
    # 16 and 1 batches at temperature 4: 16^(1/4) = 2 against 1, so every third step is b's.
    schedule = Temperature({"a": 16, "b": 1}, temperature=4)
    assert who(schedule, 9) == "a b a a b a a b a"
    # The last of the 16 batches of a is due at 31 / 4, when 8 of b are.
    assert schedule.steps_per_epoch == 24
    assert schedule.draws(24) == {"a": 16, "b": 8}


@given(given=schedules(), epochs=st.integers(1, 3))
def test_each_task_takes_its_batches_in_order_and_all_of_them_in_an_epoch(
    given: tuple[Schedule, dict[str, int]], epochs: int
) -> None:
    schedule, lengths = given
    taken: dict[str, list[int]] = {task: [] for task in lengths}
    for step in range(epochs * schedule.steps_per_epoch):
        tasks = turns(schedule, step)
        assert len(tasks) >= 1
        assert isinstance(schedule, Joint) or len(tasks) == 1
        assert list(tasks) == [task for task in lengths if task in tasks]
        for task, number in tasks.items():
            taken[task].append(number)
    for task, numbers in taken.items():
        assert numbers == list(range(len(numbers)))
        # Of many tasks, the one that has most of the steps may have its last batch a little later.
        assert len(numbers) >= epochs * lengths[task] - (
            type(schedule) is Temperature and epochs > 1 and len(lengths) > 3
        )
        if isinstance(schedule, Epochs | Proportional):
            assert len(numbers) == epochs * lengths[task]
    assert schedule.draws(epochs * schedule.steps_per_epoch) == {task: len(numbers) for task, numbers in taken.items()}


@given(lengths=LENGTHS, temperature=st.floats(1, 50))
def test_an_epoch_is_no_longer_than_it_must_be(lengths: dict[str, int], temperature: float) -> None:
    steps = Temperature(lengths, temperature=temperature).steps_per_epoch
    total = sum(length ** (1 / temperature) for length in lengths.values())
    # What the shares ask for, and what turns that are not divided lag behind.
    asked = max(length * total / length ** (1 / temperature) for length in lengths.values())
    assert asked - 0.01 <= steps <= asked + 1 + len(lengths)


@given(given=schedules(), step=st.integers(0, 10**7), other=st.integers(0, 10**7))
def test_a_step_depends_on_nothing_that_was_asked_before(
    given: tuple[Schedule, dict[str, int]], step: int, other: int
) -> None:
    schedule, _ = given
    expected = turns(schedule, step)
    turns(schedule, other)
    assert turns(schedule, step) == expected
    before, after = schedule.draws(step), schedule.draws(step + 1)
    assert {task: after[task] - before[task] for task in before} == {task: int(task in expected) for task in before}


@given(lengths=LENGTHS, temperature=st.floats(1, 50), steps=st.integers(0, 10**6))
def test_shares_of_the_steps_are_those_of_the_papers(lengths: dict[str, int], temperature: float, steps: int) -> None:
    """arXiv:1910.10683, section 3.5.2, up to the bound that the class states."""
    draws = Temperature(lengths, temperature=temperature).draws(steps)
    assert sum(draws.values()) == steps
    total = sum(length ** (1 / temperature) for length in lengths.values())
    for task, length in lengths.items():
        share = length ** (1 / temperature) / total
        # And what weights in whole parts of 2^-20 move a share by.
        bound = (1 + (len(lengths) - 2) * share) / 2 + steps * 2**-20
        assert abs(draws[task] - steps * share) <= bound + 1e-9


@given(lengths=LENGTHS, steps=st.integers(0, 10**6))
def test_proportional_shows_all_images_equally_often(lengths: dict[str, int], steps: int) -> None:
    draws = Proportional(lengths).draws(steps)
    for task, length in lengths.items():
        share = Fraction(length, sum(lengths.values()))
        assert abs(draws[task] - steps * share) <= (1 + (len(lengths) - 2) * share) / 2


def test_a_high_temperature_is_round_robin_and_that_of_1_proportional() -> None:
    lengths = {"a": 50, "b": 3, "c": 7}
    hot, cold = Temperature(lengths, temperature=1e12), Temperature(lengths, temperature=1.0)
    assert who(hot, 9) == who(made("round-robin", lengths), 9)
    assert [turns(cold, step) for step in range(120)] == [turns(Proportional(lengths), step) for step in range(120)]


@pytest.mark.parametrize("name", NAMES)
def test_a_late_step_costs_what_the_first_does(name: str) -> None:
    schedule = made(name, {"a": 100_000, "b": 1_000}, **({"temperature": 3.0} if name == "temperature" else {}))
    start = time.perf_counter()
    for step in range(10**15, 10**15 + 100):
        assert turns(schedule, step)
    # Counting up to there would take years.
    assert time.perf_counter() - start < 1


def recipe(every: dict[str, int] | None = None, **train: Any) -> Recipe:
    plain = toy_recipe({"one": {}, "two": {}}, **train)
    for task, number in (every or {}).items():
        plain["tasks"][task]["every"] = number
    return Recipe.from_plain(plain)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "temperature"}, r"^train\.schedule\.temperature: required"),
        (
            {"temperature": 5.0},
            r"^train\.temperature: is an option of .* write train\.schedule={name: temperature, .*: 5",
        ),
        ({"schedule": {"name": "joint", "temperature": 5}}, r"^train\.schedule\.temperature: unknown option"),
        ({"schedule": {"name": "temperature", "temperature": "5"}}, r"^train\.schedule\.temperature: expected"),
        (
            {"schedule": "round-robin", "every": {"two": 3}},
            r"^tasks\.two\.every: the schedule 'round-robin' does not let a task skip steps; .* train\.schedule=joint",
        ),
        ({"every": {"one": 2, "two": 3}}, r"^tasks\.one\.every: must be 1 for one task at least, .* got 2"),
        ({"every": {"one": 0}}, r"^tasks\.one\.every: expected greater than or equal to 1, got 0"),
        ({"schedule": "proportionl"}, r"^train\.schedule: no schedule 'proportionl'; did you mean 'proportional'"),
    ],
)
def test_what_a_schedule_has_no_use_for_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(**given).check()


@pytest.mark.parametrize("temperature", [0.5, float("inf"), float("nan")])
def test_a_temperature_is_1_or_more(temperature: float) -> None:
    with pytest.raises(RecipeError, match=r"temperature: must be 1 or more and finite, got (0\.5|inf|nan)"):
        Temperature({"a": 1}, temperature=temperature)


class Blocks:
    """One task after the other, several steps each."""

    def __init__(self, lengths: dict[str, int], *, block: int = 2) -> None:
        self.tasks, self.block = tuple(lengths), block
        self.steps_per_epoch = len(lengths) * block * max(-(-length // block) for length in lengths.values())

    def draws(self, steps: int) -> dict[str, int]:
        rounds, rest = divmod(steps, len(self.tasks) * self.block)
        return {
            task: rounds * self.block + min(max(rest - turn * self.block, 0), self.block)
            for turn, task in enumerate(self.tasks)
        }


def test_a_schedule_may_be_anybody_s() -> None:
    chosen = recipe(schedule={"name": f"{Path(__file__).resolve()}:Blocks", "block": 3})
    batches = Assembly(chosen.check()).batches()
    assert [*map(list, map(batches.at, range(7)))] == [["one"]] * 3 + [["two"]] * 3 + [["one"]]
    assert batches.at(6) == {"one": 3}
    renamed = chosen.renamed(lambda name: name.rpartition(":")[2]).train.schedule
    assert renamed.plain() == {"name": "Blocks", "block": 3}


def test_a_recipe_with_a_schedule_is_written_and_read_again() -> None:
    for made in (recipe({"two": 3}), recipe(schedule={"name": "temperature", "temperature": 5.0})):
        from mtframe.yaml import parse_yaml

        again = Recipe.from_plain(parse_yaml(made.to_yaml(), "recipe"), made.base)
        assert again == made


def test_the_pages_table_of_exposures_is_right() -> None:
    """100,000 images beside 1,000 in batches of 64."""
    page = (
        (Path(__file__).parents[1] / "docs" / "training.md")
        .read_text(encoding="utf-8")
        .split("### How often images are seen")[1]
    )
    given = {
        "`joint`": ["joint"],
        "`joint`, the small task `every: 10`": ["joint"],
        "`round-robin`": ["round-robin"],
        "`temperature`, 5": ["temperature"],
        "`temperature`, 2": ["temperature"],
        "`proportional`, `epochs`": ["proportional", "epochs"],
    }
    table = dict(re.findall(r"^\| (`.*?) \| (\d.*) \|$", page, flags=re.MULTILINE))
    assert set(table) == set(given)
    for row, names in given.items():
        number = int((re.findall(r"\d+", row) or ["1"])[0])
        options = {"temperature": float(number)}
        for name in names:
            schedule = made(
                name, {"large": 1563, "small": 16}, {"large": 1, "small": number}, **options if name in options else {}
            )
            seen = schedule.draws(schedule.steps_per_epoch)
            times = [f"{seen['large'] * 64 / 100_000:.1f}", f"{seen['small'] * 64 / 1_000:.1f}"]
            assert [str(schedule.steps_per_epoch), *times] == table[row].replace(" times", "").split(" | ")
