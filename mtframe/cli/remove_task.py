"""`mtframe remove-task`: a trained model without one of its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtframe.cli._app import Trusted, say, trust_runs


def remove_task(
    run: Annotated[Path, typer.Argument(help="The run's folder; it stays as it is.")],
    task: Annotated[str, typer.Argument(metavar="NAME", help="The task to remove.")],
    out: Annotated[Path | None, typer.Option(help="The new run's folder (default: RUN-without-NAME).")] = None,
    trust: Trusted = False,
) -> None:
    """Copy a run without one of its tasks.

    mtframe remove-task runs/recipe objects
    """
    from mtframe.cli._work import new_run, sibling_folder
    from mtframe.recipe import check_task_name
    from mtframe.run import RunFolder
    from mtframe.training import remove_task as removed

    check_task_name(task)
    RunFolder.open(run)
    trust_runs(trust, run)
    with new_run(out, sibling_folder(run, f"without-{task}")) as folder:
        left = removed(run, task, folder)
    checkpoints = ", ".join(sorted(folder.name for folder in left.checkpoints.iterdir()))
    say([f"removed {task}; left are {', '.join(left.infos())}, as they were, in the checkpoints {checkpoints}",
         f"run: {left.path}"])  # fmt: skip
