"""`mtframe add-task`: one more task for a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtframe.cli._app import Trusted, trust_runs


def add_task(
    run: Annotated[Path, typer.Argument(help="The run to add to; it stays as it is.")],
    task: Annotated[str, typer.Argument(metavar="NAME=PRESET:ROOT", help="The new task and its data.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Change the recipe, e.g. train.epochs=5"),
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Train the whole network; distillation preserves the old tasks.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The new run's folder (default: RUN-NAME).")] = None,
    observers: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="HOOKS", help="Additional observers, e.g. tensorboard; may be repeated."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Let a failing hook stop the training.")] = False,
    trust: Trusted = False,
) -> None:
    """Add a task to a copy of a trained model and train it.

    mtframe add-task runs/recipe scenes=scene-recognition:data/scenes

    mtframe add-task runs/recipe scenes=scene-recognition:data/scenes --finetune train.distil=2
    """
    from mtframe._overrides import parse_task
    from mtframe.cli._work import new_run, sibling_folder, train_assembly
    from mtframe.recipe import check_task_name
    from mtframe.run import RunFolder
    from mtframe.training import add_task as added

    name, _ = parse_task(task)
    check_task_name(name)
    RunFolder.open(run)
    trust_runs(trust, run)
    with new_run(out, sibling_folder(run, name)) as folder:
        assembly = added(run, task, overrides or [], finetune=finetune, hooks=observers or [])
        train_assembly(assembly, folder, strict=strict)
