"""`mtframe verify`: do two pictures show the same?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtframe.cli._app import Trusted, as_json, say, trust_runs


def verify(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    first: Annotated[Path, typer.Argument(help="An image file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Change the run's recipe.")] = None,
    task: Annotated[
        str | None, typer.Option("-t", "--task", help="The task whose embeddings are compared, if several give them.")
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="SIMILARITY", help="Least similarity of the same, or a name of the run's thresholds, as far=1e-2."
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last or best_TASK.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust: Trusted = False,
) -> None:
    """Say whether two pictures show the same, by the threshold that the run has chosen on its validation data.

    The exit code is 0 whatever the answer.

    mtframe verify runs/recipe a.jpg b.jpg

    mtframe verify runs/recipe a.jpg b.jpg --accept far=1e-2 --json
    """
    from mtframe import inference

    trust_runs(trust, run)
    predictor = inference.load_run(run, checkpoint, device, overrides=overrides or [])
    found = inference.verify(predictor, first, second, task, accept)
    if json_output:
        said = {"task": found.task, "first": str(first), "second": str(second), "same": found.same}
        say(as_json({**said, "similarity": found.similarity, "threshold": found.threshold}))
    else:
        answer = "the same" if found.same else "not the same"
        say(f"{answer}: similarity {found.similarity:.4f}, threshold {found.threshold:.4f}")
