"""Names that are nearly those of a contract, which nobody calls and nobody misses."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mtframe.hooks import HookSpecs
from mtframe.kinds import KINDS, members_of
from mtframe.registry import resolve, split_local

if TYPE_CHECKING:
    from mtframe.recipe import Recipe

# How alike two names must be, 0..1, for one to be taken for the other misspelt.
_ALIKE = 0.85


# What components of a kind are called, where its name alone is not it.
_CALLED = {"dataset": "a data set", "target": "a kind of target", "sharing": "a sharing scheme", "hooks": "an observer"}


def known_names(kind: str) -> tuple[str, ...]:
    """All names by which the framework asks for something of a kind's components."""
    protocols = (*KINDS[kind].contracts, *KINDS[kind].abilities, *([HookSpecs] if kind == "hooks" else []))
    return tuple(dict.fromkeys(name for protocol in protocols for name in members_of(protocol)))


def near_misses(kind: str, cls: Any, part: Any, asked: Mapping[type, str] | None = None) -> Iterator[str]:
    """What is wrong with the names of a component's public members, in words.

    Args:
        kind: Name of its kind.
        cls: Its class.
        part: One that is built, if it can be; else the class again.
        asked: Protocols that other components ask of it (`AsksDataset`), and who does.
    """
    asking = dict.fromkeys(known_names(kind), "the framework")
    for protocol, whose in (asked or {}).items():
        asking |= {name: whose for name in members_of(protocol) if name not in asking}
    lacking = [name for name in asking if not hasattr(part, name)]
    for name in _own_names(cls, part):
        near = [known for known in lacking if _plain(known) == _plain(name)]
        near = near or difflib.get_close_matches(name, lacking, n=1, cutoff=_ALIKE)
        if near and name not in asking:
            where = _CALLED.get(kind, f"a {kind}")
            yield f"{name!r} is nearly {near[0]!r}, which {asking[near[0]]} looks for in {where}"
    for ability in (*KINDS[kind].abilities, *(asked or {})):
        names = members_of(ability)
        there = [name for name in names if callable(getattr(part, name, None))]
        lost = [name for name in names if not hasattr(part, name)]
        if there and lost:
            missing = ", ".join(lost)
            all_of_them = "both" if len(names) == 2 else "all of them"
            yield f"it has {', '.join(there)} and not {missing}: {ability.__name__} takes {all_of_them}"


def local_near_misses(recipe: Recipe) -> list[str]:
    """What is wrong with names in a checked recipe's parts in files, which no check of a distribution sees."""
    said: dict[tuple[str, str], list[str]] = {}
    for where, kind, choice in recipe.choices():
        if split_local(choice.name) is None or (kind, choice.name) in said:
            continue
        component = resolve(kind, choice.name, recipe.base).component
        label = f"{where}: {choice.name}"
        said[kind, choice.name] = [f"{label}: {problem}" for problem in near_misses(kind, component, component)]
    return [line for lines in said.values() for line in lines]


def _own_names(cls: Any, part: Any) -> list[str]:
    """Public members of its own, on the class and on the instance, but for options that it keeps."""
    package = cls.__module__.partition(".")[0]
    bases = [base for base in getattr(cls, "__mro__", ()) if base.__module__.partition(".")[0] == package]
    names = dict.fromkeys(name for thing in (*bases, part) for name in getattr(thing, "__dict__", ()))
    options = inspect.signature(cls).parameters
    return [name for name in names if not name.startswith("_") and name not in options]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
