"""Filling what a recipe leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from mtframe.errors import PluginError
from mtframe.registry import Lookups, name_of, qualified

# What a task has from the task whose images it uses.
LENT = ("transform", "size", "batch_size", "every", "flip_test", "test_scales")


def fill(
    plain: Mapping[str, Any],
    base: Path | None,
    fields: Iterable[str],
    parts: Mapping[str, str],
    lookups: Lookups,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The recipe with each task's gaps filled from its preset, and what is wrong with presets, by task.

    Args:
        plain: A recipe as plain YAML values; not changed.
        base: Folder that presets in files are relative to.
        fields: What a preset may fill.
        parts: The kind of those fields that name components.
        lookups: Finds the presets.
    """
    filled, wrong = deepcopy(dict(plain)), {}
    tasks = filled.get("tasks")
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        if not isinstance(task, dict) or not (isinstance(task.get("preset"), str) or callable(task.get("preset"))):
            continue
        try:
            named = task["preset"] if isinstance(task["preset"], str) else name_of(task["preset"])
            preset = lookups.resolve("preset", named, base)
        except (PluginError, ValueError) as error:
            wrong[name] = f"tasks.{name}.preset: {error}"
            continue
        for field in fields:
            if hasattr(preset.component, field):
                value = _meant(getattr(preset.component, field), parts.get(field), preset.origin.dist)
                task[field] = _merged(value, task.get(field), field in parts and field != "metrics")
    return filled, wrong


def lend(filled: dict[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Gives tasks that use another task's images what makes batches of these; returns what is wrong with it.

    Args:
        filled: A recipe, filled from presets; changed.
        given: The same recipe as it was written.
    """
    tasks, wrong = filled.get("tasks"), list[str]()
    if not isinstance(tasks, dict):
        return wrong
    for name, task in tasks.items():
        if not isinstance(task, dict) or not isinstance(task.get("images"), str):
            continue
        where, lender = f"tasks.{name}", task["images"]
        able = [other for other, its in tasks.items() if isinstance(its, dict) and its.get("images") is None]
        if lender not in able:
            there = ", ".join(other for other in able if other != name) or "none"
            wrong.append(
                f"{where}.images: expected a task that has images of its own, got {lender!r}; there are: {there}"
            )
            continue
        for field in LENT:
            if field in given["tasks"][name]:
                wrong.append(f"{where}.{field}: comes from task {lender!r}, whose images are used; leave it out here")
            task.pop(field, None)
            if field in tasks[lender]:
                task[field] = deepcopy(tasks[lender][field])
    return wrong


def _meant(value: Any, kind: str | None, dist: str | None) -> Any:
    """What a preset gives, names meaning its own distribution's where others offer them too."""
    if kind is None:
        return value
    if isinstance(value, list | tuple):
        return [_meant(part, kind, dist) for part in value]
    if isinstance(value, Mapping):
        return {**value, "name": _meant(value["name"], kind, dist)} if "name" in value else dict(value)
    return qualified(kind, value, dist) if isinstance(value, str) else value


def _merged(preset: Any, given: Any, is_part: bool) -> Any:
    """What the recipe gives, over what the preset gives; another component drops the preset's options."""
    if given is None:
        return deepcopy(list(preset) if isinstance(preset, tuple) else preset)
    if not is_part or not isinstance(given, str | dict):
        return given
    ours = {"name": given} if isinstance(given, str) else given
    theirs = deepcopy(preset) if isinstance(preset, dict) else {"name": preset}
    return {**theirs, **ours} if ours.get("name", theirs.get("name")) == theirs.get("name") else ours
