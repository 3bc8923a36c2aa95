"""`mtframe plugins check`: whether a distribution's components keep the contracts of their kinds."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtframe.cli._app import say

if TYPE_CHECKING:
    from mtframe.testing import Case


def check(
    dist: Annotated[str, typer.Argument(metavar="DIST", help="An installed distribution.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="KIND:NAME.OPTION=VALUE", help="Options of a component that cannot be built without."),
    ] = None,
    kind: Annotated[str | None, typer.Option("-k", "--kind", help="Only this kind: backbone, head, loss, ...")] = None,
) -> None:
    """Check whether a distribution's components keep their kind's contract. Exit code 1 if one does not.

    mtframe plugins check kite-head dataset:kites.root=data/kites
    """
    from mtframe.registry import check_entry_points, kind_of

    check_entry_points()
    from mtframe.testing import Kit

    wanted = None if kind is None else kind_of(kind).name
    cases = [case for case in Kit(dist, _options(arguments or [])).cases() if wanted in (None, case.subject.kind)]
    counts = Counter(_report(case) for case in cases)
    say(f"{counts['ok']} ok, {counts['FAILED']} failed, {counts['skipped']} skipped")
    if counts["FAILED"]:
        raise typer.Exit(1)


def _report(case: Case) -> str:
    """Makes a check and says in a line how that went."""
    from mtframe.testing import Skip

    result, why = "ok", ""
    try:
        case.run()
    except Skip as reason:
        result, why = "skipped", str(reason)
    except Exception as error:
        result, why = "FAILED", _reason(error)
    say(f"{result:8}{case.id}{f': {why}' if why else ''}")
    return result


def _reason(error: Exception) -> str:
    """What a check found, or what the component raised, and where."""
    from mtframe.testing import Violation

    said = " ".join(str(error).split())
    if isinstance(error, Violation):
        return said
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {said} ({place.filename}:{place.lineno})"


def _options(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options by component, of `KIND:NAME.OPTION=VALUE` each."""
    from mtframe.errors import RecipeError
    from mtframe.recipe import apply_overrides

    given: dict[str, list[str]] = {}
    for argument in arguments:
        component, dot, override = argument.partition(".")
        if not dot or ":" not in component or "=" not in override or "=" in component:
            raise RecipeError(f"{argument!r}: expected KIND:NAME.OPTION=VALUE, as in dataset:kites.root=data/kites")
        given.setdefault(component, []).append(override)
    return {component: apply_overrides({}, overrides) for component, overrides in given.items()}
