"""`mtframe evaluate`: score a run by each field's own protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtframe.cli._app import Trusted, as_json, say, trust_runs
from mtframe.errors import one_line


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Change the run's recipe, e.g. tasks.faces.dataset.root=data/lfw"),
    ] = None,
    task: Annotated[list[str] | None, typer.Option("-t", "--task", help="Only this task; may be repeated.")] = None,
    split: Annotated[str, typer.Option(help="Split of the data sets.")] = "val",
    checkpoint: Annotated[str, typer.Option(help="best, last or best_TASK.")] = "best",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write curves, confusion matrices and the like there.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    trust: Trusted = False,
) -> None:
    """Score a trained run on its validation data, or on another split or data set.

    mtframe evaluate runs/recipe

    mtframe evaluate runs/recipe -t faces --split test tasks.faces.dataset.root=data/lfw
    """
    from mtframe.cli import _work
    from mtframe.evaluation import finite, write_details
    from mtframe.inference import load_run

    trust_runs(trust, run)
    predictor = load_run(run, checkpoint, overrides=overrides or [])
    results = predictor.evaluate_many(task or None, split, details=out is not None)
    for name, result in results.items():
        for reason in result.skipped:
            say(f"{name}: skipped {one_line(reason)}", err=True)
    written = [file for name, result in results.items() if out for file in write_details(result, name, out)]
    if json_output:
        say(as_json({name: finite(result.values) for name, result in results.items()}))
        for name, result in results.items():
            for note in result.remarks:
                say(f"{name}: {one_line(note)}", err=True)
    else:
        _work.print_scores(results)
        say([f"wrote {one_line(file)}" for file in written])
