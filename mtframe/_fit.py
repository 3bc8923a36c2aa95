"""Whether named parts exist and fit each other, before anything is built."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mtframe.errors import PluginError
from mtframe.kinds import (
    FINDINGS,
    DescribesMembers,
    Downloads,
    Family,
    InspectsFiles,
    LabelsImages,
    Surveys,
    Synthesizes,
)
from mtframe.registry import Resolved, at_hand, did_you_mean


def check_member(resolved: Resolved) -> None:
    """Raises PluginError if a family is named without a member, RecipeError if it has no such member."""
    family, member = resolved.component, resolved.member
    if not isinstance(family, Family):
        return
    if member is None:
        form = f"{resolved.name}/MEMBER"
        raise PluginError(f"{resolved.name!r} is a family; name a member of it, as in {form!r}")
    # A family may take more names than it lists, and says best itself which it does not take.
    if isinstance(family, DescribesMembers) and member not in family.members(glob.escape(member)):
        family.describe_member(member)


def targets_of(component: Any) -> tuple[str, ...]:
    """The kinds of target that a component works on; none if it does not say.

    Raises:
        PluginError: What it says are no names.
    """
    target = getattr(component, "target", ())
    if isinstance(target, str):
        return (target,)
    if not isinstance(target, tuple | list) or not all(isinstance(one, str) for one in target):
        raise PluginError(f"{component.__module__}:{component.__qualname__}: target must be names, got {target!r}")
    return tuple(target)


def splits_of(component: Any) -> tuple[str, ...]:
    """The splits that a data set may be asked for.

    Raises:
        PluginError: It does not say, or what it says are no names.
    """
    splits = getattr(component, "splits", None)
    if not isinstance(splits, tuple | list) or not all(isinstance(one, str) for one in splits):
        name = f"{component.__module__}:{getattr(component, '__qualname__', component)}"
        raise PluginError(f"{name}: expected a class attribute splits, as ('train', 'val'), got {splits!r}")
    return tuple(splits)


def mismatches(name: str, found: Mapping[str, Resolved]) -> list[str]:
    """Parts of the task that speak of other kinds of target than its data set."""
    dataset = found.get(f"tasks.{name}.dataset")
    if dataset is None or not (given := targets_of(dataset.component)):
        return []
    return [
        mismatch(where, part.kind, part.name, speaks, dataset.name, given)
        for where, part in found.items()
        if where.startswith(f"tasks.{name}.") and (speaks := targets_of(part.component)) and not {*speaks} & {*given}
    ]


def mismatch(where: str, kind: str, part: str, speaks: tuple[str, ...], dataset: str, given: tuple[str, ...]) -> str:
    """The message that a part and a data set do not fit, and which parts would."""
    fits = ", ".join(_speaking(kind, given)) or "none is installed"
    return (
        f"{where}: {kind} {part!r} works on targets of kind {_either(speaks)}, but the data set {dataset!r} gives "
        f"{_either(given)}; a {kind} that fits: {fits}"
    )


def no_labels(name: str, found: Mapping[str, Resolved]) -> list[str]:
    """What is wrong if a task's data set cannot label the images of another task."""
    where = f"tasks.{name}.dataset"
    dataset = found.get(where)
    if dataset is None or issubclass_of(dataset.component, LabelsImages):
        return []
    able = ", ".join(_labelling()) or "none is installed"
    return [f"{where}: {dataset.name!r} cannot label the images of another task; a data set that can: {able}"]


def no_target(name: str, found: Mapping[str, Resolved], look_up: Callable[[str, str], Resolved]) -> list[str]:
    """What is wrong if a kind of target that a task's data set gives is not installed.

    Args:
        name: Of the task.
        found: The recipe's parts by place.
        look_up: Finds what has a name, of a kind.
    """
    where = f"tasks.{name}.dataset"
    dataset = found.get(where)
    if dataset is None:
        return []
    wrong = []
    for target in targets_of(dataset.component):
        try:
            look_up("target", target)
        except PluginError as error:
            wrong.append(f"{where}: {dataset.name!r} gives targets of kind {target!r}: {error}")
    return wrong


def findings_of(components: Iterable[Any]) -> tuple[str, ...] | None:
    """What may be found in the data of a task, by name, in order: what `--allow` and `train.allow` take.

    Args:
        components: Its data set and its kinds of target.

    Returns:
        None where one of them is no class, which does not say.
    """
    names = {*FINDINGS}
    for component in components:
        if not isinstance(component, type):
            return None
        if isinstance(component, InspectsFiles | Surveys):
            names |= {*component.findings}
    return tuple(sorted(names))


def strange_findings(where: str, allowed: Iterable[str], known: Sequence[str] | None) -> list[str]:
    """What is wrong with names of findings that are allowed, as of none that there may be."""
    return [
        f"{where}: nothing that is looked for is called {name!r}{did_you_mean(name, known) or '.'} "
        f"What may be found in this data: {', '.join(known)}"
        for name in allowed
        if known is not None and name not in known
    ]


def issubclass_of(component: object, ability: type) -> bool:
    """Whether a class has the methods of a protocol; a function that makes components says nothing."""
    return isinstance(component, type) and issubclass(component, ability)


def _either(kinds: tuple[str, ...]) -> str:
    return " or ".join(map(repr, kinds))


def _speaking(kind: str, targets: tuple[str, ...]) -> Iterator[str]:
    """Names of components of a kind that work on one of some kinds of target."""
    for name, component in at_hand(kind):
        # What is wrong with a component that nobody has named is not reported here.
        with contextlib.suppress(PluginError):
            if {*targets_of(component)} & {*targets}:
                yield name


def _labelling() -> Iterator[str]:
    """Names of data sets that can label images which another data set read."""
    return (name for name, component in at_hand("dataset") if issubclass_of(component, LabelsImages))


def with_hint(message: str, where: str, dataset: Resolved | None) -> str:
    """A message that lacks a data set's root, with the ways to give one."""
    missing = f"{where}.root: required"
    if dataset is None or missing not in message.splitlines():
        return message
    ways = f"{missing}. Name its folder, as in -t NAME=PRESET:ROOT or {where}.root=ROOT"
    if isinstance(dataset.component, Downloads):
        ways += f". Fetch it with: mtframe data download {dataset.name} data/{dataset.name}"
    elif isinstance(dataset.component, Synthesizes):
        ways += f". Make some with: mtframe data synthesize {dataset.name} data/{dataset.name}"
    return message.replace(missing, ways)
