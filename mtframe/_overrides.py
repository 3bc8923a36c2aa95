"""`key=value` on the command line, and tasks assembled on the spot."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from mtframe.errors import RecipeError
from mtframe.registry import did_you_mean, in_texts
from mtframe.yaml import parse_yaml

# A text between quotes, as it is; or one without, in which `{split}` stands.
_PLAIN = r"""[^\s\[\]{},"':#]"""
_PLACEHOLDER = re.compile(
    r""""(?:[^"\\]|\\.)*"|'[^']*'|"""
    rf"""(?<!{_PLAIN})(?P<name>(?!&|\*|!|\||>){_PLAIN}*(?:\{{[A-Za-z_]\w*\}}{_PLAIN}*)+)"""
)

_TASK_SPEC = re.compile(r"(?P<name>[^=]+)=(?P<preset>[^:]*\.py:[A-Za-z_]\w*|[^:]+)(?::(?P<root>.+))?")


def apply_overrides(
    plain: dict[str, Any], overrides: Sequence[str], rename: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """A recipe as plain YAML values, changed by `key=value` texts.

    Keys are dotted (`tasks.faces.loss.margin=0.3`), values are YAML (`0.3`, `null`, `[1, 2]`,
    `{name: dense, width: 64}`), in which a name alone in braces is text, as in `masks/{split}`. A part that is only
    named (`head: dense`) becomes a mapping when an override goes into it. `train.epochs=5` also replaces the recipe's
    `train.steps`.

    Args:
        plain: The recipe; not changed.
        overrides: Applied in order.
        rename: What takes the place of a text in their values.

    Raises:
        RecipeError: An override has no `=`, its value is no YAML, or its key goes into something without keys
            or names a task that the recipe does not have.
    """
    changed = deepcopy(plain)
    keys = [override.partition("=")[0].strip() for override in overrides]
    if "train.epochs" in keys and isinstance(train := changed.get("train"), dict):
        # Whoever asks for epochs is not to get steps; those of another override are set below.
        train.pop("steps", None)
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise RecipeError(f"override {override!r}: expected key=value, as in train.epochs=5")
        value = parse_yaml(_quoted(text), f"override {override!r}")
        _set(changed, parts, in_texts(value, rename) if rename is not None else value, override)
    return changed


def _quoted(text: str) -> str:
    """A value in which texts with a name in braces stand in quotes: YAML takes `{split}2017` for a broken mapping."""
    return _PLACEHOLDER.sub(lambda found: f'"{found[0]}"' if found["name"] else found[0], text)


def add_hooks(
    plain: dict[str, Any],
    named: Sequence[str],
    default: Sequence[str],
    rename: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """A recipe as plain YAML values, with more observers.

    Args:
        plain: The recipe; not changed.
        named: Each a name, or a mapping with `name` and options in YAML; what is named already is not added.
        default: Those of a recipe that names none.
        rename: What takes the place of a text in `named`.
    """
    given = plain.get("hooks", list(default)) if named else None
    if not isinstance(given, list):
        return plain
    hooks = list(given)
    for text in named:
        hook = parse_yaml(text, f"--with {text}")
        if rename is not None:
            hook = in_texts(hook, rename)
        if hook not in hooks:
            hooks.append(hook)
    return {**plain, "hooks": hooks}


def parse_task(spec: str) -> tuple[str, dict[str, Any]]:
    """Name and recipe of a task written as `NAME=PRESET` or `NAME=PRESET:ROOT`.

    Raises:
        RecipeError: It has another form.
    """
    match = _TASK_SPEC.fullmatch(spec)
    if match is None:
        raise RecipeError(
            f"task {spec!r}: expected NAME=PRESET:ROOT, as in faces=face-recognition:data/lfw\n"
            "See the presets with: mtframe plugins list preset"
        )
    root = {"dataset": {"root": match["root"]}} if match["root"] else {}
    return match["name"], {"preset": match["preset"], **root}


def _set(node: Any, parts: list[str], value: Any, override: str) -> None:
    """Sets the value at the end of the path, making mappings on the way."""
    for depth, part in enumerate(parts):
        place = ".".join(parts[: depth + 1])
        if isinstance(node, list):
            # Of more digits, `int` may raise ValueError.
            if not (part.isdecimal() and len(part) < 10) or int(part) >= len(node):
                there = f"has items 0 to {len(node) - 1}" if node else "is empty"
                raise RecipeError(f"override {override!r}: {place}: the list {there}")
        elif not isinstance(node, dict):
            parent = ".".join(parts[:depth])
            raise RecipeError(f"override {override!r}: {parent} is {node!r} and has no {part!r}")
        elif depth == 1 and parts[0] == "tasks" and part not in node:
            hint = did_you_mean(part, node) or f"; the tasks are {', '.join(map(str, node)) or 'none'}"
            raise RecipeError(f"override {override!r}: no task {part!r}{hint}")
        key: Any = int(part) if isinstance(node, list) else part
        if depth == len(parts) - 1:
            node[key] = value
            return
        inner = node[key] if isinstance(node, list) else node.get(key)
        if inner is None or isinstance(inner, str):
            inner = node[key] = {} if inner is None else {"name": inner}
        node = inner
