"""Which data set reads a folder, where only the folder is named."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtframe import options
from mtframe._fit import targets_of
from mtframe.errors import PluginError, RecipeError
from mtframe.kinds import Recognises
from mtframe.registry import Lookups, discover, name_of, qualified, resolve

# What of a preset says on which kind of target a task works.
_SPEAKING = {"dataset": "dataset", "head": "head", "loss": "loss", "metrics": "metric"}


def recognise(task: str, plain: Mapping[str, Any], said: Callable[[str], None]) -> dict[str, Any]:
    """A task with the data set that reads its folder, where it names the folder and no data set.

    The data sets that are asked are those that are installed, can tell (`Recognises`), take the options that are given,
    and give the kind of target that the task's preset works on. Where none knows the folder, the preset's own is left,
    whose error says what it expects.

    Args:
        task: The task's name.
        plain: The task as plain YAML values; not changed.
        said: Is told which one was found, if it is not the preset's own.

    Raises:
        RecipeError: More than one would do.
    """
    given = plain.get("dataset")
    if not isinstance(given, dict) or "name" in given:
        return dict(plain)
    root = given.get("root")
    if not isinstance(root, str) or not os.path.exists(root) or (preset := _preset(plain)) is None:
        return dict(plain)
    targets = _targets(plain, preset)
    found = dict(_readers(Path(root), {key: value for key, value in given.items() if key != "root"}, targets))
    if not found:
        own = _names(getattr(preset, "dataset", None))
        cls = resolve("dataset", own[0]).component if len(own) == 1 else None
        # Options say how to read it.
        if cls is not None and given.keys() == {"root"} and _can_tell(cls) and targets & {*targets_of(cls)}:
            said(f"{task}: no data set knows '{root}' for its own; {own[0]} is tried, the preset's")
        return dict(plain)
    names = sorted(found)
    if len(names) > 1:
        raise RecipeError(
            f"tasks.{task}.dataset: {' and '.join(names)} can all read '{root}'; say which with "
            f"tasks.{task}.dataset.name={names[0]}"
        )
    ((name, more),) = found.items()
    if more or [name] != _names(getattr(preset, "dataset", None)):
        told = "".join(f", {key}={value}" for key, value in more.items())
        said(f"{task}: '{root}' is read by data set {name}{told}; tasks.{task}.dataset.name chooses another")
    return {**plain, "dataset": {"name": name, **given, **more}}


def _readers(root: Path, given: Mapping[str, Any], targets: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The data sets that know a folder and take the given options, each with the options to read it with."""
    for component in discover("dataset"):
        with contextlib.suppress(PluginError, RecipeError):
            cls: Any = component.load()
            if not _can_tell(cls) or not targets & {*targets_of(cls)}:
                continue
            if (more := _told_by(cls, root)) is None:
                continue
            more = {key: value for key, value in more.items() if key not in given}
            options.check(cls, "dataset", {"root": str(root), **given, **more}, component.name)
            yield qualified("dataset", component.name, component.dist), more


def options_for(cls: Any, root: Path) -> dict[str, Any]:
    """With which options, besides the root, a data set reads a folder, as far as it can tell."""
    return dict((_can_tell(cls) and _told_by(cls, root)) or {})


def _told_by(cls: Any, root: Path) -> Mapping[str, Any] | None:
    try:
        found = cls.recognises(root)
    except Exception:
        # A data set that nobody has named ends nobody's work.
        return None
    return found if isinstance(found, Mapping) else None


def _can_tell(cls: Any) -> bool:
    return isinstance(cls, Recognises)


def _preset(plain: Mapping[str, Any]) -> Any:
    """A task's preset; None if it is not at hand, of which whoever reads the recipe says what is wrong."""
    preset = plain.get("preset")
    try:
        return Lookups().resolve("preset", preset if isinstance(preset, str) else name_of(preset), None).component
    except (PluginError, ValueError, TypeError, AttributeError):
        return None


def targets_of_preset(preset: Any) -> set[str]:
    """The kinds of target on which all parts of a preset work."""
    return _targets({}, preset)


def _targets(plain: Mapping[str, Any], preset: Any) -> set[str]:
    """The kinds of target on which all parts of a task work that say so."""
    found: set[str] | None = None
    for field, kind in _SPEAKING.items():
        value = plain.get(field) if field != "dataset" else None
        for name in _names(value) or _names(getattr(preset, field, None)):
            with contextlib.suppress(PluginError):
                speaks = {*targets_of(resolve(kind, name).component)}
                found = speaks if found is None else found & (speaks or found)
    return found or set()


def _names(parts: Any) -> list[str]:
    """The names of components in what a recipe or a preset has for a part."""
    parts = parts if isinstance(parts, list | tuple) else [parts]
    names = [part.get("name") if isinstance(part, Mapping) else part for part in parts]
    return [name for name in names if isinstance(name, str)]
