"""`mtframe backbones`: which backbones match a pattern."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import typer

from mtframe.cli._app import say
from mtframe.kinds import Family


def backbones(
    pattern: Annotated[str, typer.Argument(help="A shell pattern in quotes: 'resnet*', 'timm/vit_*'.")],
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only those with pretrained weights.")] = False,
) -> None:
    """List backbones whose names match a pattern, with or without the family in front."""
    from mtframe.errors import PluginError, RecipeError, described, one_line
    from mtframe.registry import discover

    found = []
    family, slash, rest = pattern.partition("/")
    components = discover("backbone")
    # With its family named, no other plugin need be imported.
    named = [component for component in components if slash and family == component.name]
    for component in named or components:
        inner = rest if named else pattern
        try:
            loaded = component.load()
        except PluginError as error:
            say(f"left out: {error}", err=True)
            continue
        if isinstance(loaded, Family):
            try:
                members = loaded.members(inner, pretrained=pretrained)
            except (Exception, SystemExit) as error:
                say(f"left out: {component.label} cannot list its members: {described(error)}", err=True)
                continue
            found += [f"{component.name}/{member}" for member in members]
        elif fnmatchcase(component.name, pattern) and not pretrained:
            found.append(component.name)
    if not found:
        raise RecipeError(f"no backbone matches {pattern!r}; try a wider pattern such as '*{pattern.strip('*')}*'")
    say(map(one_line, found))
