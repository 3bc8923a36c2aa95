"""Whatever text a user or a stranger's file holds: a message, never another exception.

More examples with `pytest -m slow tests/test_small_text.py`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from command import mtframe
from mtframe._overrides import apply_overrides, parse_task
from mtframe.errors import MtframeError
from mtframe.recipe import Recipe
from mtframe.yaml import parse_yaml
from toy import toy_recipe

FEW = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
MANY = settings(deadline=None, max_examples=20_000, suppress_health_check=list(HealthCheck))

# Letters that mean something to YAML, more often than others.
YAML = st.text(
    st.sampled_from("ab01-:{}[],&*!|>'\"%@`#~?=<. \n\t\\\x00\x85\ufeff\u2028é") | st.characters(), max_size=60
)
NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=400)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("x" * 5000)
VALUES = st.recursive(
    SCALARS | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([place] if place else []), *(found for key, inner in items for found in places(inner, (*place, key)))]


PLACES = places(toy_recipe())


def yaml_is_read_or_refused(text: str) -> None:
    with suppress(MtframeError):
        parse_yaml(text, "test")


def an_override_is_applied_or_refused(text: str) -> None:
    with suppress(MtframeError):
        apply_overrides(toy_recipe(), [text])
    with suppress(MtframeError):
        parse_task(text)


def a_recipe_is_taken_or_refused(place: tuple[Any, ...], value: Any) -> None:
    plain = toy_recipe()
    holder = plain
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    with suppress(MtframeError):
        Recipe.from_plain(plain).check()


def a_command_ends_with_a_code(command: tuple[str, ...], text: str) -> None:
    result = mtframe(*command, text)
    assert result.code in (0, 1, 2)
    assert "Traceback" not in result.err


COMMANDS = st.sampled_from([("evaluate",), ("predict", "x"), ("train",), ("train", "--resume"), ("init",),
                            ("backbones",), ("plugins", "show"), ("plugins", "show", "head"), ("data", "check", "coco"),
                            ("remove-task", "x"), ("add-task", "x")])  # fmt: skip

YAML_EXAMPLES = (
    "!!bool x",
    "!!float ''",
    "!!timestamp x",
    "9" * 5000,
    "0x" + "f" * 9999,
    "a: !!int x",
    "[" * 500,
    "- - - ? :",
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", YAML_EXAMPLES)
def test_known_yaml(text: str) -> None:
    yaml_is_read_or_refused(text)


@FEW
@given(YAML)
def test_yaml(text: str) -> None:
    yaml_is_read_or_refused(text)


@FEW
@given(YAML | st.builds("{}={}".format, st.sampled_from(["train.lr", "tasks.one.head", "hooks", "a..b", ""]), YAML))
def test_overrides(text: str) -> None:
    an_override_is_applied_or_refused(text)


@FEW
@given(st.sampled_from(PLACES), VALUES)
@example(("tasks", "one", "target"), [1])
@example(("tasks",), {0: {}})
@example(("tasks",), {None: {"preset": 1}, 1.5: {}})
@example(("train", "lr"), 10**400)
@example(("tasks", "one", "size"), float("inf"))
@example(("backbone",), "x" * 5000 + ".py:Net")
def test_recipes(place: tuple[Any, ...], value: Any) -> None:
    a_recipe_is_taken_or_refused(place, value)


@settings(FEW, max_examples=40)
@given(COMMANDS, NAMES)
@example(("evaluate",), "x" * 300)
@example(("train",), "y" * 300 + ".yaml")
@example(("train", "--resume"), "\udcff\udcfe")
@example(("data", "check", "coco"), "z" * 5000)
def test_commands(command: tuple[str, ...], text: str) -> None:
    a_command_ends_with_a_code(command, text)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_more() -> None:
    MANY(given(YAML)(yaml_is_read_or_refused))()
    MANY(given(YAML)(an_override_is_applied_or_refused))()
    MANY(given(st.sampled_from(PLACES), VALUES)(a_recipe_is_taken_or_refused))()
    settings(MANY, max_examples=2000)(given(COMMANDS, NAMES)(a_command_ends_with_a_code))()
