"""`mtframe plugins new`: a package to begin a plugin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtframe.cli._app import say
from mtframe.kinds import KINDS


def new(
    name: Annotated[str, typer.Argument(help="Name of the distribution and of its component, e.g. my-head.")],
    kind: Annotated[str, typer.Option(metavar="KIND", help=f"What it is to be: {', '.join(KINDS)}.")],
    out: Annotated[Path | None, typer.Option(help="The package's folder (default: NAME).")] = None,
) -> None:
    """Write a package with one small working component, to begin a plugin with.

    mtframe plugins new my-head --kind head
    """
    from mtframe.templates import write_package

    folder, commands = write_package(name, kind, out)
    say("\n  ".join([f"wrote {folder}. Install it, train with it, test it:", *commands]))
