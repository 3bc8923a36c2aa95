"""`mtframe init`: a recipe of named tasks, and what its model costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtframe.cli._app import Trusted, note, print_document, say, trust_recipe
from mtframe.errors import RecipeError

# What of a recipe has no dot in its key, and is no task.
_WHOLE = ("sharing", "balancer", "hooks")


def init(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=PRESET[:ROOT]|RECIPE",
            help="Tasks, as in faces=face-recognition, or a recipe file; and overrides, as in train.epochs=5.",
        ),
    ],
    backbone: Annotated[
        str | None,
        typer.Option("-b", "--backbone", help="The shared backbone, e.g. timm/resnet18; required with tasks."),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Also print what the model costs: parameters by task, FLOPs by pass.")
    ] = False,
    trust: Trusted = False,
) -> None:
    """Print a recipe with everything that presets fill in written out.

    A root that is not given is data/NAME, after the data set.

    mtframe init recipe.yaml sharing=mtan --summary > other.yaml
    """
    from mtframe.recipe import assemble_recipe, load_recipe

    if backbone is None:
        if "=" in arguments[0]:
            raise RecipeError(
                "expected -b BACKBONE beside tasks, as in -b timm/resnet18; or a recipe file in place of both"
            )
        trust_recipe(trust, arguments[0])
        recipe = load_recipe(arguments[0], arguments[1:])
    else:
        for argument in arguments:
            if "=" not in argument and (Path(argument).suffix in (".yaml", ".yml") or Path(argument).is_file()):
                raise RecipeError(
                    f"{argument!r} beside -b: expected tasks, as in faces=face-recognition. A recipe file takes the "
                    f"place of both; its backbone is changed with backbone.name={backbone}"
                )
        # A task's name has no dot, and an override of a task's part or of training always has one.
        overrides = [argument for argument in arguments if _overrides(argument.partition("=")[0])]
        named = [argument for argument in arguments if argument not in overrides]
        recipe = assemble_recipe(backbone, named, overrides, data="data", said=note)
    checked = recipe.check()
    print_document("# Train it with: mtframe train THIS_FILE [KEY=VALUE]...\n" + recipe.to_yaml())
    if summary:
        from mtframe.cli._summary import summarise

        # Beside the recipe, which usually goes into a file.
        say(summarise(checked), err=True)


def _overrides(key: str) -> bool:
    return "." in key or key in _WHOLE
