"""Observers see everything and cost nothing when they fail."""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from fake_dist import make_dist
from mtframe import hooks
from mtframe.assembly import observe
from mtframe.errors import PluginError, RecipeError
from mtframe.hooks import Hooks, HookSpecs, hookimpl
from mtframe.recipe import Recipe, load_recipe
from mtframe.yaml import dump_yaml
from toy import toy_recipe


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    @hookimpl
    def step_ended(self, step: int) -> None:
        self.seen.append(step)

    @hookimpl
    def training_ended(self, error: BaseException | None) -> None:
        self.seen.append(error)


class Raising:
    calls = 0

    @hookimpl
    def step_ended(self, losses: Any) -> None:
        self.calls += 1
        raise RuntimeError(f"no room for {losses}")


def test_observers_get_the_arguments_they_ask_for() -> None:
    observer = Recorder()
    registered = Hooks()
    registered.register(observer, "recorder")
    registered.call.step_ended(step=1, losses={})
    registered.call.evaluation_ended(step=1, metrics={}, scores={})
    registered.call.training_ended(error=None)
    assert observer.seen == [1, None]
    assert registered.names == ["recorder"]


def test_a_raising_observer_is_named_logged_and_disabled(caplog: pytest.LogCaptureFixture) -> None:
    first, bad, last = Recorder(), Raising(), Recorder()
    registered = Hooks()
    for name, plugin in (("first", first), ("bad", bad), ("last", last)):
        registered.register(plugin, name)
    with caplog.at_level(logging.WARNING, "mtframe"):
        registered.call.step_ended(step=1, losses="x")
        registered.call.step_ended(step=2, losses="y")
    assert first.seen == last.seen == [1, 2]
    assert bad.calls == 1
    assert registered.names == ["first", "last"]
    (record,) = caplog.records
    assert record.getMessage() == "bad is disabled: its step_ended raised RuntimeError: no room for x"
    assert record.exc_info is not None
    assert registered.disabled == {"bad": "step_ended raised RuntimeError: no room for x"}


def test_strict_raises() -> None:
    registered = Hooks(strict=True)
    registered.register(Raising(), "bad")
    with pytest.raises(RuntimeError, match="no room for x"):
        registered.call.step_ended(step=1, losses="x")
    assert registered.names == ["bad"]


def test_an_observer_that_exits_does_not_end_the_training() -> None:
    class Exiting:
        @hookimpl
        def step_ended(self) -> None:
            raise SystemExit(3)

    registered = Hooks()
    registered.register(Exiting(), "exiting")
    registered.call.step_ended(step=1, losses={})
    assert registered.disabled == {"exiting": "step_ended raised SystemExit: 3"}


def test_only_a_recipe_that_is_refused_ends_the_call() -> None:
    class Refusing:
        @hookimpl
        def recipe_read(self, recipe: Any) -> None:
            raise RecipeError(f"not {recipe}")

        @hookimpl
        def step_ended(self) -> None:
            raise RecipeError("too late")

    registered = Hooks()
    registered.register(Refusing(), "refusing")
    with pytest.raises(RecipeError, match="not this"):
        registered.call.recipe_read(recipe="this")
    registered.call.step_ended(step=1, losses={})
    assert registered.names == []


def test_stopping_the_program_is_not_swallowed() -> None:
    class Stopping:
        @hookimpl
        def step_ended(self) -> None:
            raise KeyboardInterrupt

    registered = Hooks()
    registered.register(Stopping())
    with pytest.raises(KeyboardInterrupt):
        registered.call.step_ended(step=1, losses={})


def test_wrong_hooks_are_refused_and_leave_nothing_behind() -> None:
    class NoSuchHook:
        @hookimpl
        def step_begun(self) -> None: ...

    class NoSuchArgument:
        @hookimpl
        def step_ended(self, stepp: int) -> None: ...

    class Wrapper:
        @hookimpl(wrapper=True)
        def step_ended(self) -> Any:
            yield

    registered = Hooks()
    for plugin, said in ((NoSuchHook(), "step_begun"), (NoSuchArgument(), "stepp"), (Wrapper(), "wrappers")):
        with pytest.raises(PluginError, match=f"wrong: cannot observe: .*{said}"):
            registered.register(plugin, "wrong")
    assert registered.names == []
    registered.call.step_ended(step=1, losses={})


def test_an_observer_of_nothing_is_refused() -> None:
    class Forgotten:
        def step_ended(self, step: int) -> None: ...

    class Other: ...

    hooks = Hooks()
    with pytest.raises(PluginError, match=r"none of its methods is marked with @hookimpl; it has step_ended$"):
        hooks.register(Forgotten(), "f")
    with pytest.raises(PluginError, match=r"none of its methods is marked with @hookimpl$"):
        hooks.register(Other())
    assert hooks.names == []


def test_no_such_hook() -> None:
    with pytest.raises(AttributeError, match="no hook 'step_begun'"):
        _ = Hooks().call.step_begun


OBSERVER = """
from mtframe.hooks import hookimpl

seen = []

class Observer:
    def __init__(self, *, times: int = 1):
        self.times = times

    @hookimpl
    def step_ended(self, step):
        seen.append(step * self.times)

class Raising:
    @hookimpl
    def model_assembled(self, model):
        raise ValueError("no such model")
"""


def test_a_recipe_names_its_observers_and_the_installed_ones_it_does_not_name_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {"watch": "observer_kit:Observer", "broken": "no_such_module:X"}
    monkeypatch.syspath_prepend(make_dist(tmp_path, "obs-kit", {"mtframe.hooks": entries}, {"observer_kit": OBSERVER}))
    plain = {**toy_recipe(), "hooks": ["watch", {"name": "watch", "times": -1}, f"{tmp_path}/observer_kit.py:Raising"]}
    recipe = Recipe.from_plain(plain)
    assert [place for place in recipe.check().parts if place.startswith("hooks")] == ["hooks.0", "hooks.1", "hooks.2"]
    registered = observe(recipe)
    registered.call.model_assembled(model=None, recipe=recipe)
    registered.call.step_ended(step=3, losses={})
    import observer_kit

    assert observer_kit.seen == [3, -3]
    assert registered.names == ["hooks.1 (watch)", "hooks.0 (watch)"]
    with pytest.raises(RecipeError, match=r"hooks\.0\.tmes: unknown option; did you mean 'times'"):
        Recipe.from_plain({**plain, "hooks": {"name": "watch", "tmes": 2}}).check()
    with pytest.raises(RecipeError, match=r"hooks\.0: hooks 'broken' of obs-kit 1\.2\.3 cannot be imported"):
        Recipe.from_plain({**plain, "hooks": "broken"}).check()


def test_with_adds_to_what_the_recipe_has(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(toy_recipe()), encoding="utf-8")
    named = ["csv-logger", "tensorboard", "{name: early-stopping, patience: 3}"]
    recipe = load_recipe(file, ["hooks.1.flush_secs=5"], named)
    assert [hook.plain() for hook in recipe.hooks] == [
        "csv-logger",
        {"name": "tensorboard", "flush_secs": 5},
        {"name": "early-stopping", "patience": 3},
    ]
    assert load_recipe(file).hooks[0].name == "csv-logger"
    with pytest.raises(RecipeError, match=r"--with \{name: x"):
        load_recipe(file, [], ["{name: x"])


def test_every_hook_and_each_of_its_arguments_is_documented() -> None:
    specs = [spec for name, spec in vars(HookSpecs).items() if not name.startswith("_")]
    assert len(specs) == 9
    for spec in specs:
        names = list(inspect.signature(spec).parameters)[1:]
        documented = re.findall(r"^ {4}(\w+): ", inspect.getdoc(spec) or "", flags=re.MULTILINE)
        assert documented == names, spec.__name__
    page = (Path(hooks.__file__).parents[1] / "docs" / "hooks.md").read_text(encoding="utf-8")
    assert re.findall(r"^### `(\w+)\(", page, flags=re.MULTILINE) == [spec.__name__ for spec in specs]
