"""mtframe init."""

from __future__ import annotations

from typing import Annotated

import typer


def init(
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=PRESET[:ROOT]",
            help="Tasks, as in faces=face-recognition, and overrides with a dot, as in train.epochs=5.",
        ),
    ],
    backbone: Annotated[str, typer.Option("-b", "--backbone", help="What all tasks share: timm/resnet18.")],
) -> None:
    """Print a recipe, with everything that presets fill in written out.

    Roots that are not given are data/NAME, with the data set's name.
    """
    from mtframe.recipe import assemble_recipe

    # A task's name has no dot, and an override of a task's part or of training always has one.
    overrides = [argument for argument in tasks if "." in argument.partition("=")[0]]
    named = [argument for argument in tasks if argument not in overrides]
    recipe = assemble_recipe(backbone, named, overrides, data="data")
    recipe.check()
    print("# Train it with: mtframe train THIS_FILE [KEY=VALUE]...\n" + recipe.to_yaml(), end="")
