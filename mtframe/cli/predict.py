"""`mtframe predict`: what a run sees in pictures, drawn and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    sources: Annotated[list[Path], typer.Argument(help="Image files, or folders of images.")],
    out: Annotated[Path | None, typer.Option(help="Where pictures go (default: RUN/predictions).")] = None,
    task: Annotated[list[str] | None, typer.Option("-t", "--task", help="Only this task; may be repeated.")] = None,
    checkpoint: Annotated[str, typer.Option(help="best, last or best_TASK.")] = "best",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score of a box that is drawn.")] = 0.3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Also print every prediction as JSON.")] = False,
) -> None:
    """Run a trained model on pictures.

    Boxes are drawn on each picture. For embeddings, a sheet shows for each picture those most similar to it.
    A file that cannot be read is named and left out; the exit code is then 1.

    mtframe predict runs/recipe photo.jpg holiday/ --out seen
    """
    import json

    from mtframe.cli._work import say
    from mtframe.inference import find_images, load_run, predict_files

    predictor = load_run(run, checkpoint, device)
    result = predict_files(predictor, list(find_images(sources)), out or run / "predictions", task, threshold)
    if json_output:
        typer.echo(json.dumps(result.described, indent=2))
    else:
        say([f"wrote {path}" for path in result.pictures])
    for reason in result.unreadable:
        typer.echo(f"skipped {reason}", err=True)
    if result.unreadable:
        raise typer.Exit(1)
