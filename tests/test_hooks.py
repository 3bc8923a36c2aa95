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
from mtframe.errors import PluginError
from mtframe.hooks import Hooks, HookSpecs, hookimpl


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
    assert record.getMessage() == "hooks of bad are disabled: step_ended raised RuntimeError: no room for x"
    assert record.exc_info is not None


def test_strict_raises() -> None:
    registered = Hooks(strict=True)
    registered.register(Raising(), "bad")
    with pytest.raises(RuntimeError, match="no room for x"):
        registered.call.step_ended(step=1, losses="x")
    assert registered.names == ["bad"]


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
        with pytest.raises(PluginError, match=f"hooks of 'wrong' cannot be used: .*{said}"):
            registered.register(plugin, "wrong")
    assert registered.names == []
    registered.call.step_ended(step=1, losses={})


def test_no_such_hook() -> None:
    with pytest.raises(AttributeError, match="no hook 'step_begun'"):
        _ = Hooks().call.step_begun


OBSERVER = """
from mtframe.hooks import hookimpl

class Observer:
    @hookimpl
    def step_ended(self, step):
        seen.append(step)

@hookimpl
def step_ended(step):
    seen.append(-step)

seen = []
"""


def test_installed_observers_and_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {"class": "observer_kit:Observer", "module": "observer_kit", "broken": "no_such_module:X"}
    monkeypatch.syspath_prepend(make_dist(tmp_path, "obs-kit", {"mtframe.hooks": entries}, {"observer_kit": OBSERVER}))
    registered = Hooks()
    with caplog.at_level(logging.WARNING, "mtframe"):
        registered.load_installed()
    assert registered.names == ["class@obs-kit", "module@obs-kit"]
    assert "hooks of broken@obs-kit are left out: ModuleNotFoundError" in caplog.text
    registered.call.step_ended(step=3, losses={})
    import observer_kit

    assert sorted(observer_kit.seen) == [-3, 3]
    with pytest.raises(PluginError, match="hooks of 'broken@obs-kit' cannot be used: No module named"):
        Hooks(strict=True).load_installed()


def test_every_hook_and_each_of_its_arguments_is_documented() -> None:
    specs = [spec for name, spec in vars(HookSpecs).items() if not name.startswith("_")]
    assert len(specs) == 7
    for spec in specs:
        names = list(inspect.signature(spec).parameters)[1:]
        documented = re.findall(r"^ {4}(\w+): ", inspect.getdoc(spec) or "", flags=re.MULTILINE)
        assert documented == names, spec.__name__
    page = (Path(hooks.__file__).parents[1] / "docs" / "hooks.md").read_text()
    assert re.findall(r"^### `(\w+)\(", page, flags=re.MULTILINE) == [spec.__name__ for spec in specs]
