"""`mtframe plugins list` and `show`: which components there are, and which options one of them takes."""

from __future__ import annotations

import inspect
import re
import textwrap
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtframe.errors import one_line
from mtframe.kinds import DescribesMembers, Downloads, Family, Synthesizes

from ._app import say, table

if TYPE_CHECKING:
    from mtframe.options import OptionDoc
    from mtframe.registry import Resolved

Kind = Annotated[str, typer.Argument(help="backbone, sharing, head, loss, dataset, ... (see plugins list)")]


def list_components(
    kind: Annotated[str | None, typer.Argument(help="Only this kind: backbone, head, loss, ...")] = None,
) -> None:
    """List all components and hooks of installed distributions, without importing them."""
    from mtframe._notes import noted
    from mtframe.registry import OURS, discover, strays, unreadable

    components = discover(kind)
    offers = Counter((component.kind, component.name) for component in components)
    ours = {(component.kind, component.name) for component in components if component.dist == OURS}
    rows = []
    for component in components:
        notes = []
        if offers[component.kind, component.name] > 1 and component.dist != OURS:
            taken = "name taken" if (component.kind, component.name) in ours else "ambiguous"
            notes.append(f"{taken}: write {component.qualified}")
        if component.broken:
            notes.append(f"broken: {component.broken}")
        elif seen := noted(component.label):
            notes.append(f"{seen}: see mtframe plugins doctor {component.dist}")
        row = component.kind, component.name, component.dist, component.version, "; ".join(notes)
        rows.append(row)
    say(table(("KIND", "NAME", "DISTRIBUTION", "VERSION", "NOTE"), rows))
    marked = {component.dist for component in components if component.broken}
    for note in (*strays(), *(other for other in unreadable() if other.dist not in marked)):
        say(f"note: {one_line(note)}", err=True)


def show(
    kind: Kind,
    name: Annotated[str, typer.Argument(help="dense, timm/resnet18, arcface@their-dist, ./heads.py:MyHead")],
) -> None:
    """Show one component: where it comes from, what it does, its options with types and defaults."""
    from mtframe.errors import PluginError
    from mtframe.registry import resolve

    try:
        resolved = resolve(kind, name)
    except PluginError as error:
        if error.__cause__ is not None:
            say("".join(traceback.format_exception(error.__cause__)), err=True, end="")
        raise
    say("\n\n".join(part for part in _parts(resolved) if part))


def _parts(resolved: Resolved) -> list[str]:
    """What is shown, in blocks."""
    from mtframe._near_misses import near_misses
    from mtframe.options import describe, wired_names

    component, kind = resolved.component, resolved.kind
    where = f"{component.__module__}:{getattr(component, '__qualname__', resolved.name)}"
    wired = ", ".join(wired_names(component, kind)) or "nothing"
    parts = [
        f"{kind} {resolved.name}\nfrom {resolved.origin} ({where})",
        _description(component),
        f"Wired by the framework: {wired}",
        _listing("Options", describe(component, kind)),
    ]
    if kind == "dataset" and isinstance(component, Synthesizes):
        command = f"mtframe data synthesize {resolved.name} ROOT"
        parts.append(_listing(f"Options of {command}", describe(component.synthesize, ("root",))))
    if kind == "dataset" and isinstance(component, Downloads):
        command = f"mtframe data download {resolved.name} ROOT"
        parts.append(_listing(f"Options of {command}", describe(component.download, ("root",))))
    parts.append(_abilities(component, kind))
    if near := list(near_misses(kind, component, component)):
        parts.append("\n  ".join(["Near misses:", *near]))
    if kind == "preset":
        parts.append(_preset(component))
    if isinstance(component, Family):
        parts.append(_family(resolved))
    return parts


def _description(component: Any) -> str:
    """The docstring without its section on options, which are listed by themselves."""
    text = inspect.getdoc(component) or ""
    return re.sub(r"\n*^Args:\n(?:[ \t]+.*\n?|\n)+", "\n\n", text + "\n", flags=re.MULTILINE).strip()


def _abilities(component: Any, kind: str) -> str:
    """The protocols of its kind's optional abilities that it fits, as far as the class shows."""
    from mtframe.kinds import KINDS, members_of

    found = []
    for ability in KINDS[kind].abilities:
        names = members_of(ability)
        if all(hasattr(component, name) for name in names):
            found.append(f"{ability.__name__} ({', '.join(names)})")
    return f"Optional abilities: {', '.join(found)}" if found else ""


def _listing(title: str, options: Sequence[OptionDoc]) -> str:
    if not options:
        return f"{title}: none"
    lines = [f"{title}:"]
    for option in options:
        default = "(required)" if option.default is None else f"= {option.default}"
        lines.append(f"  {option.name}: {option.type} {default}")
        lines += textwrap.wrap(option.doc, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _preset(component: Any) -> str:
    from mtframe.recipe import TaskRecipe

    fields = [field for field in TaskRecipe.model_fields if hasattr(component, field)]
    return "\n".join(["Fills in:", *(f"  {field}: {getattr(component, field)}" for field in fields)])


def _family(resolved: Resolved) -> str:
    family = resolved.name.partition("/")[0]
    if resolved.member is None:
        return f"A family; name a member, as in {family}/MEMBER. Search: mtframe backbones '{family}/PATTERN'"
    if not isinstance(resolved.component, DescribesMembers):
        return f"Member {resolved.member} of the family {family}"
    details = resolved.component.describe_member(resolved.member)
    return "\n".join([f"Member {resolved.member}:", *(f"  {key}: {value}" for key, value in details.items())])
