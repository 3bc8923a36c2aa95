"""`mtframe affinity`: which tasks of a recipe help each other, and what to train together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtframe.cli._app import Trusted, trust_recipe


def affinity(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Change the recipe, e.g. train.lr=3e-4")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Length of the training, instead of the recipe's.")] = 200,
    every: Annotated[int, typer.Option(min=1, help="Steps between measurements.")] = 5,
    networks: Annotated[
        int | None, typer.Option(min=1, help="Largest number of networks to propose (default: as few as do).")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write affinity.json there.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    trust: Trusted = False,
) -> None:
    """Estimate from a short training which tasks help each other, and propose what to train together.

    mtframe affinity recipe.yaml

    mtframe affinity recipe.yaml tasks.faces.batch_size=32 --steps 400 --networks 2 --out affinity
    """
    from mtframe.recipe import load_recipe

    trust_recipe(trust, recipe)
    chosen = load_recipe(recipe, overrides or [])
    chosen.check()
    from mtframe.affinity import check_count, estimate_affinity
    from mtframe.cli import _affinity, _work
    from mtframe.cli._app import as_json, say
    from mtframe.hooks import Hooks
    from mtframe.training import Progress

    # What would fail after the training fails before it.
    check_count(list(chosen.tasks))
    if out is not None:
        _make(out)

    hooks = Hooks()
    if not json_output:
        hooks.register(Progress(_work.CONSOLE), "progress")
    found = estimate_affinity(chosen, hooks, steps=steps, every=every)
    report = _affinity.Report(found, networks)
    written = [] if out is None else [f"wrote {report.write(out)}"]
    if json_output:
        say(as_json(report.plain()))
    else:
        say([*report.lines(), *written])


def _make(out: Path) -> None:
    """Makes the folder of results. Raises RecipeError if it cannot be made."""
    from mtframe.errors import RecipeError
    from mtframe.files import make_folder

    try:
        make_folder(out)
    except OSError as error:
        raise RecipeError(f"--out: {out} cannot be made ({error.strerror or error})") from None
