"""`mtframe plugins doctor`: what is wrong with the environment or a plugin, and what to do about it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mtframe.cli._app import say

if TYPE_CHECKING:
    from mtframe.cli._health import Finding
    from mtframe.import_probe import Probe
    from mtframe.registry import Component

# Seconds that importing a plugin may take before it is given up.
_TIMEOUT = 120.0

# What to do about an entry-point group that is no kind's: metadata are written at installation.
_REINSTALL = "name the right group in its pyproject.toml and install it again; if it is not yours, tell its authors"


def doctor(
    dists: Annotated[
        list[str] | None, typer.Argument(metavar="DIST", help="Check only these distributions, not the environment.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Longest time for one import, in seconds.")] = _TIMEOUT,
) -> None:
    """Import every plugin in its own process, check the environment, and say what is wrong and what to do.

    Exit code 1 if anything is wrong.

    mtframe plugins doctor

    mtframe plugins doctor kite-kit
    """
    from mtframe.cli import _health
    from mtframe.errors import PluginError
    from mtframe.registry import discover, normalised, strays

    by_dist: dict[str, list[Component]] = {}
    for component in discover():
        by_dist.setdefault(component.dist, []).append(component)
    versions = {component.dist: component.version for its in by_dist.values() for component in its}
    for stray in strays():
        by_dist.setdefault(stray.dist, [])
        versions.setdefault(stray.dist, stray.version)
    wanted = {normalised(name) for name in dists or ()}
    if unknown := wanted - {normalised(name) for name in by_dist}:
        raise PluginError(
            f"no distribution {sorted(unknown)[0]!r} with components; there are: {', '.join(by_dist) or 'none'}"
        )
    problems = 0 if wanted else _report("environment", _health.environment())
    for name, components in by_dist.items():
        if not wanted or normalised(name) in wanted:
            lost = [_health.Finding(False, str(stray), _REINSTALL) for stray in strays() if stray.dist == name]
            findings = [*_health.requirements(name), *lost, *_components(components, timeout)]
            problems += _report(f"{name} {versions[name]}", findings)
    say(f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    if problems:
        raise typer.Exit(1)


def _components(components: Sequence[Component], timeout: float) -> Iterator[Finding]:
    """What is wrong with components of one distribution."""
    from mtframe._notes import noted
    from mtframe.cli._health import Finding
    from mtframe.import_probe import probe
    from mtframe.registry import OURS, discover, unreadable

    offers = Counter((component.kind, component.name) for component in discover())
    whole = [component for component in components if not component.broken]
    if unreadable():
        # Of every import nothing would show but that torch's fails.
        for component in components:
            if component.broken:
                said = f"{component.kind} {component.name!r}: {component.broken}"
                yield Finding(False, said, _advice(component))
        return
    probes = iter(probe([component.value for component in whole], timeout))
    healthy = 0
    for component in components:
        about = f"{component.kind} {component.name!r}"
        found = [Finding(False, f"{about}: {component.broken}", _advice(component))] if component.broken else []
        if not component.broken:
            found = [*_probed(component, next(probes))]
            if not found and (seen := noted(component.label)):
                found.append(Finding(None, f"{about}: when it was last used, {seen}"))
        if offers[component.kind, component.name] > 1 and component.dist != OURS:
            others = [c.dist for c in discover(component.kind) if c.name == component.name and c != component]
            said = f"offered by {' and '.join(others)} too; a recipe has to say {component.qualified!r}"
            found.append(Finding(None, f"{about}: {said}"))
        healthy += not found
        yield from found
    if healthy:
        counted = "1 component imports" if healthy == 1 else f"{healthy} components import"
        yield Finding(True, f"{counted} silently, and options can be read")


def _probed(component: Component, probe: Probe) -> Iterator[Finding]:
    """What an import showed, and whether options can be read."""
    from mtframe._installed import SLOW_IMPORT
    from mtframe._notes import note
    from mtframe.cli._health import Finding
    from mtframe.errors import PluginError
    from mtframe.options import schema

    about, problems = f"{component.kind} {component.name!r}", list(probe.problems)
    if probe.seconds > SLOW_IMPORT:
        problems.append(f"takes {probe.seconds:.0f} s to import")
    if not probe.error:
        try:
            schema(component.load(), component.kind)
        except PluginError as error:
            problems.append(str(error))
    if problems:
        # Listings say so from now on, until an import goes well.
        note(component.label, "; ".join(problems))
        yield Finding(False, f"{about}: {'; '.join(problems)}", _advice(component, probe.error), probe.traceback)


def _advice(component: Component, error: str | None = None) -> str:
    """What to do about a plugin that is broken."""
    from mtframe.registry import OURS

    if component.dist == OURS:
        return "pip install --force-reinstall --no-deps mtframe"
    if component.damaged:
        return f"pip install --force-reinstall {component.dist}"
    if component.unmet:
        return f"pip install --upgrade {component.dist}, or an mtframe that it works with"
    if error and error.startswith("ModuleNotFoundError: No module named "):
        package = error.split("'")[1].partition(".")[0]
        return f"pip install {package} (or what provides it); {component.dist} should require it"
    return f"tell its authors; until then only what names it is affected, and pip uninstall {component.dist} removes it"


def _report(title: str, findings: Sequence[Finding]) -> int:
    """Prints findings under a title; returns how many are problems."""
    say(title)
    for finding in findings:
        mark = {True: "ok", False: "PROBLEM", None: "note"}[finding.good]
        say(textwrap.indent(finding.text, " " * 11).replace(" " * 11, f"  {mark:9}", 1))
        if finding.traceback:
            say(textwrap.indent(finding.traceback.rstrip(), " " * 13))
        if finding.advice:
            say(f"{' ' * 11}What to do: {finding.advice}")
    return sum(finding.good is False for finding in findings)
