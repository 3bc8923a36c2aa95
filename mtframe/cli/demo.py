"""`mtframe demo`: the whole story without a download: make data, train, evaluate, look."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtframe.cli._app import say
from mtframe.errors import MtframeError
from mtframe.kinds import Synthesizes

if TYPE_CHECKING:
    from mtframe.inference import Predictor
    from mtframe.recipe import Choice, Recipe

# Validation images that are drawn: groups, and neighbours in each.
_GROUPS, _NEIGHBOURS = 4, 3


def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Change the demo's recipe, e.g. train.steps=100"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default: runs/demo).")] = None,
    data: Annotated[
        Path, typer.Option(help="Where the data is generated; data already in its folders faces and objects is used.")
    ] = Path("data/demo"),
) -> None:
    """Generate a small data set, train faces and objects on one backbone, evaluate, and draw. No download.

    Takes about two minutes on two cores, and draws what there is to learn from within the first half.
    """
    from mtframe.cli import _work
    from mtframe.inference import load_run
    from mtframe.recipe import load_recipe
    from mtframe.run import RunFolder

    start = time.monotonic()
    file = Path(__file__).with_name("demo.yaml")
    roots = [f"tasks.{name}.dataset.root={data / name}" for name in load_recipe(file).tasks]
    recipe = load_recipe(file, [*roots, *(overrides or [])])
    checked = recipe.check()
    if out is not None:
        RunFolder(out).check_new()
    for name, task in recipe.tasks.items():
        say(_prepare(name, task.dataset))
        # Something to look at while the network learns.
        say(f"picture: {_preview(recipe, name, data / f'{name}.png')}")
    run = _work.train_recipe(checked, out, "demo")
    predictor = load_run(run.path)
    say("the best checkpoint, loaded again from its folder:")
    _work.print_scores(predictor.evaluate_many())
    for name in recipe.tasks:
        say(f"picture: {_draw(predictor, name, run.path / 'pictures')}")
    say(f"done in {time.monotonic() - start:.0f} s")


def _prepare(task: str, dataset: Choice) -> str:
    """Makes a task's data, unless it is there; returns what was done."""
    from mtframe.options import build
    from mtframe.registry import resolve

    component, root = resolve("dataset", dataset.name).component, Path(dataset.options["root"])
    try:
        for split in ("train", "val"):
            build(component, "dataset", dataset.options, {"split": split}, f"tasks.{task}.dataset")
        return f"using {task} in {root}, which is there already; remove it to have it made anew"
    except MtframeError:
        if not isinstance(component, Synthesizes):
            raise
    begun = time.monotonic()
    counts = component.synthesize(root)
    made = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in (counts or {}).items())
    return f"made {task} in {root}: {made} ({time.monotonic() - begun:.0f} s)"


def _preview(recipe: Recipe, task: str, file: Path) -> Path:
    """Draws what training will see of one task, whose data alone need be there."""
    from mtframe.assembly import Assembly
    from mtframe.drawing import save_picture
    from mtframe.inference import preview

    alone = recipe.model_copy(update={"tasks": {task: recipe.tasks[task]}})
    save_picture(preview(Assembly(alone), task, images=_GROUPS * _NEIGHBOURS), file)
    return file


def _draw(predictor: Predictor, task: str, out: Path) -> Path:
    """Predicts some validation images of one task and draws them on one sheet."""
    from mtframe.drawing import save_picture
    from mtframe.inference import prediction_sheet

    dataset = predictor.assembly.dataset(task, "val")
    # Neighbours in a data set of people are images of one person.
    starts = range(0, len(dataset), max(1, len(dataset) // _GROUPS))
    chosen = [index for start in starts[:_GROUPS] for index in range(start, min(start + _NEIGHBOURS, len(dataset)))]
    path = out / f"{task}.png"
    samples = [dataset[index] for index in chosen]
    save_picture(prediction_sheet(predictor, task, samples, rows=range(0, len(samples), _NEIGHBOURS)), path)
    return path
