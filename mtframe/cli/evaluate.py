"""`mtframe evaluate`: score a run by each field's own protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Change the run's recipe, e.g. tasks.faces.dataset.root=data/lfw"),
    ] = None,
    task: Annotated[list[str] | None, typer.Option("-t", "--task", help="Only this task; may be repeated.")] = None,
    split: Annotated[str, typer.Option(help="Which split of the data sets.")] = "val",
    checkpoint: Annotated[str, typer.Option(help="best, last or best_TASK.")] = "best",
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score a trained run on its validation data, or on another split or data set.

    mtframe evaluate runs/recipe

    mtframe evaluate runs/recipe -t faces --split test tasks.faces.dataset.root=data/lfw
    """
    import json
    import math

    from mtframe.cli import _work
    from mtframe.inference import load_run

    predictor = load_run(run, checkpoint, overrides=overrides or [])
    results = {name: _work.evaluate(predictor, name, split) for name in predictor.chosen(task)}
    for name, result in results.items():
        for reason in result.skipped:
            typer.echo(f"{name}: skipped {reason}", err=True)
    if json_output:
        plain = {
            name: {key: value if math.isfinite(value) else None for key, value in result.values.items()}
            for name, result in results.items()
        }
        typer.echo(json.dumps(plain, indent=2))
    else:
        _work.print_scores(results)
