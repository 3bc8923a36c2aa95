"""Names that are nearly those of a contract, which nobody calls and nobody misses."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from typing import Any

from mtframe.hooks import HookSpecs
from mtframe.kinds import KINDS, members_of

# How alike two names must be, 0..1, for one to be taken for the other misspelt.
_ALIKE = 0.85


def known_names(kind: str) -> tuple[str, ...]:
    """All names by which the framework asks for something of a kind's components."""
    protocols = (*KINDS[kind].contracts, *KINDS[kind].abilities, *([HookSpecs] if kind == "hooks" else []))
    return tuple(dict.fromkeys(name for protocol in protocols for name in members_of(protocol)))


def near_misses(kind: str, cls: Any, part: Any) -> Iterator[str]:
    """What is wrong with the names of a component's public members, in words.

    Args:
        kind: Name of its kind.
        cls: Its class.
        part: One that is built, if it can be; else the class again.
    """
    lacking = [name for name in known_names(kind) if not hasattr(part, name)]
    for name in _own_names(cls, part):
        near = [known for known in lacking if _plain(known) == _plain(name)]
        near = near or difflib.get_close_matches(name, lacking, n=1, cutoff=_ALIKE)
        if near and name not in known_names(kind):
            yield f"{name!r} is nearly {near[0]!r}, which is what the framework asks a {kind} for"
    for ability in KINDS[kind].abilities:
        names = members_of(ability)
        there = [name for name in names if callable(getattr(part, name, None))]
        if 0 < len(there) < len(names):
            missing = ", ".join(name for name in names if name not in there)
            yield f"it has {', '.join(there)} and not {missing}: {ability.__name__} takes both"


def _own_names(cls: Any, part: Any) -> list[str]:
    """Public members of its own, on the class and on the instance, but for options that it keeps."""
    package = cls.__module__.partition(".")[0]
    bases = [base for base in getattr(cls, "__mro__", ()) if base.__module__.partition(".")[0] == package]
    names = dict.fromkeys(name for thing in (*bases, part) for name in getattr(thing, "__dict__", ()))
    options = inspect.signature(cls).parameters
    return [name for name in names if not name.startswith("_") and name not in options]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
