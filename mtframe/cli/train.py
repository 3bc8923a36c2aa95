"""`mtframe train`: a recipe, or parts named on the spot, to a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtframe.cli._app import Trusted, note, trust_recipe, trust_runs
from mtframe.errors import RecipeError

if TYPE_CHECKING:
    from mtframe.recipe import Recipe


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE|KEY=VALUE", help="A recipe file, then overrides."),
    ] = None,
    backbone: Annotated[str | None, typer.Option("-b", "--backbone", help="Backbone, without a recipe file.")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("-t", "--task", metavar="NAME=PRESET:ROOT", help="A task; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default: runs/NAME).")] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Start from that run's weights, or a weights file, as far as they fit."
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue a stopped run.")] = None,
    observers: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="HOOKS", help="Additional observers, e.g. tensorboard; may be repeated."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Let a failing hook stop the training.")] = False,
    trust: Trusted = False,
) -> None:
    """Train one model for all tasks of a recipe.

    mtframe train recipe.yaml train.epochs=5

    mtframe train -b timm/resnet18 -t faces=face-recognition:data/lfw -t objects=object-detection:data/coco

    mtframe train recipe.yaml --with tensorboard --with '{name: early-stopping, patience: 3}'

    mtframe train recipe.yaml --from runs/other

    mtframe train --resume runs/recipe

    mtframe train --resume runs/recipe train.workers=0
    """
    arguments = arguments or []
    if resume is not None:
        if start is not None:
            raise RecipeError(
                "--resume RUN goes on with that run's own weights; --from begins a new run with another's"
            )
        if backbone or task or out or any("=" not in argument for argument in arguments):
            raise RecipeError(
                "--resume RUN goes on with that run's own recipe; it takes no recipe, parts or folder, and as changes "
                "key=value"
            )
        from mtframe.cli._work import resume_run

        trust_runs(trust, resume)
        resume_run(resume, arguments, observers or [], strict=strict)
        return
    if arguments and "=" not in arguments[0]:
        trust_recipe(trust, arguments[0])
    recipe, name = recipe_of(arguments, backbone, task, observers or [])
    if start is not None:
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"start": str(start)})})
    checked = recipe.check()
    if trust and recipe.train.start is not None:
        from mtframe._labels import run_of

        trust_runs(trust, run_of(recipe.train.start))
    from mtframe._near_misses import local_near_misses

    for near in local_near_misses(recipe):
        note(near)
    from mtframe.cli._work import train_recipe

    train_recipe(checked, out, name, strict=strict)


def recipe_of(
    arguments: list[str], backbone: str | None, tasks: list[str] | None, observers: list[str]
) -> tuple[Recipe, str]:
    """The recipe that a call names, in a file or on the spot, and a name for its run.

    Raises:
        RecipeError: It names none, or both.
    """
    from mtframe.recipe import assemble_recipe, load_recipe

    file = arguments[0] if arguments and "=" not in arguments[0] else None
    overrides = arguments[1:] if file else arguments
    if file is not None:
        if backbone or tasks:
            raise RecipeError(
                f"{file!r} beside -b and -t: expected key=value, as in train.epochs=5. A recipe file takes their "
                "place; its parts are changed with key=value, as in backbone=timm/resnet18"
            )
        return load_recipe(file, overrides, observers), Path(file).stem
    if not (backbone and tasks):
        raise RecipeError("expected a recipe file, or -b BACKBONE and at least one -t NAME=PRESET:ROOT\n"
                          "Write a recipe with: mtframe init faces=face-recognition objects=object-detection "
                          "-b timm/resnet18 > recipe.yaml")  # fmt: skip
    recipe = assemble_recipe(backbone, tasks, overrides, observers, said=note)
    return recipe, "-".join(recipe.tasks)
