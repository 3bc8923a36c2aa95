"""Whatever text a user or a stranger's file holds: a message, never another exception.

More with `pytest -m slow tests/fuzz -s`, see test_readers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaign import FEW, try_many
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import places, put_at

from command import mtframe
from mtframe._overrides import apply_overrides, parse_task
from mtframe.errors import MtframeError
from mtframe.recipe import Recipe
from mtframe.yaml import parse_yaml
from toy import toy_recipe

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


PLACES = places(toy_recipe())


Place = tuple[Any, ...]


def yaml_is_refused(text: str) -> bool:
    return is_refused(parse_yaml, text, "test")


def an_override_is_refused(text: str) -> bool:
    return is_refused(apply_overrides, toy_recipe(), [text]) & is_refused(parse_task, text)


def a_recipe_is_refused(changed: tuple[Place, Any]) -> bool:
    place, value = changed
    return is_refused(lambda: Recipe.from_plain(put_at(toy_recipe(), place, value)).check())


def a_command_is_refused(given: tuple[tuple[str, ...], str]) -> bool:
    command, text = given
    result = mtframe(*command, text)
    assert result.code in (0, 1, 2)
    assert "Traceback" not in result.err
    return result.code != 0


def is_refused(read: Callable[..., object], *arguments: Any) -> bool:
    try:
        read(*arguments)
    except MtframeError:
        return True
    return False


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
    yaml_is_refused(text)


OVERRIDES = YAML | st.builds("{}={}".format, st.sampled_from(["train.lr", "tasks.one.head", "hooks", "a..b", ""]), YAML)
RECIPES = st.tuples(st.sampled_from(PLACES), VALUES)
CALLS = st.tuples(COMMANDS, NAMES)


@FEW
@given(YAML)
def test_yaml(text: str) -> None:
    yaml_is_refused(text)


@FEW
@given(OVERRIDES)
@example(f"tasks.one.metrics.{'9' * 5000}=x")
def test_overrides(text: str) -> None:
    an_override_is_refused(text)


@FEW
@given(RECIPES)
@example((("tasks", "one", "target"), [1]))
@example((("tasks",), {0: {}}))
@example((("tasks",), {None: {"preset": 1}, 1.5: {}}))
@example((("train", "lr"), 10**400))
@example((("tasks", "one", "size"), float("inf")))
@example((("backbone",), "x" * 5000 + ".py:Net"))
def test_recipes(changed: tuple[Place, Any]) -> None:
    a_recipe_is_refused(changed)


@settings(FEW, max_examples=40)
@given(CALLS)
@example((("evaluate",), "x" * 300))
@example((("train",), "y" * 300 + ".yaml"))
@example((("train", "--resume"), "\udcff\udcfe"))
@example((("data", "check", "coco"), "z" * 5000))
def test_commands(given: tuple[tuple[str, ...], str]) -> None:
    a_command_is_refused(given)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("name", "inputs", "feed"),
    [
        ("text as YAML", YAML, yaml_is_refused),
        ("override", OVERRIDES, an_override_is_refused),
        ("value in a recipe", RECIPES, a_recipe_is_refused),
        ("argument of a command", CALLS, a_command_is_refused),
    ],
)
def test_many_more(name: str, inputs: st.SearchStrategy[Any], feed: Callable[[Any], bool], tmp_path: Path) -> None:
    try_many(name, inputs, feed, tmp_path)
