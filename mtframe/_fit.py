"""Whether named parts exist and fit each other, before anything is built."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from typing import Any

from mtframe.errors import PluginError
from mtframe.registry import Resolved, discover


def check_member(resolved: Resolved) -> None:
    """Raises RecipeError if a family has no such member."""
    family, member = resolved.component, resolved.member
    if not hasattr(family, "members"):
        return
    if member is None:
        form = f"{resolved.name}/MEMBER"
        raise PluginError(f"{resolved.name!r} is a family; name a member of it, as in {form!r}")
    # A family may take more names than it lists, and says best itself which it does not take.
    if hasattr(family, "describe_member") and member not in family.members(glob.escape(member)):
        family.describe_member(member)


def mismatches(name: str, found: Mapping[str, Resolved]) -> list[str]:
    """Parts of the task that speak of another kind of target than its data set."""
    dataset = found.get(f"tasks.{name}.dataset")
    target = getattr(dataset.component, "target", None) if dataset else None
    lines = []
    for where, part in found.items():
        speaks = getattr(part.component, "target", target)
        if dataset is None or speaks == target or not where.startswith(f"tasks.{name}."):
            continue
        fits = ", ".join(_speaking(part.kind, target)) or "none is installed"
        lines.append(
            f"{where}: {part.kind} {part.name!r} works on targets of kind {speaks!r}, but the data set "
            f"{dataset.name!r} gives {target!r}; a {part.kind} that fits: {fits}"
        )
    return lines


def _speaking(kind: str, target: Any) -> Iterator[str]:
    """Names of installed components of a kind that work on a kind of target."""
    for component in discover(kind):
        try:
            if getattr(component.load(), "target", None) == target:
                yield component.name
        except PluginError:
            continue


def with_hint(message: str, where: str, dataset: Resolved | None) -> str:
    """A message that lacks a data set's root, with the ways to give one."""
    missing = f"{where}.root: required"
    if dataset is None or missing not in message.splitlines():
        return message
    ways = f"{missing}. Name its folder, as in -t NAME=PRESET:ROOT or {where}.root=ROOT"
    if hasattr(dataset.component, "download"):
        ways += f". Fetch it with: mtframe data download {dataset.name} data/{dataset.name}"
    return message.replace(missing, ways)
