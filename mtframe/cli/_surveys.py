"""What `mtframe data check` does: surveys of a data set, or of a recipe's tasks. Imports torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mtframe import options
from mtframe._recognised import options_for
from mtframe.assembly import Assembly
from mtframe.cli._app import say
from mtframe.cli.data import default_preset
from mtframe.errors import MtframeError, RecipeError, one_line
from mtframe.kinds import Dataset, PlacesWhole
from mtframe.recipe import apply_overrides, assemble_recipe, load_recipe
from mtframe.registry import resolve
from mtframe.survey import (
    Learned,
    Look,
    Surveyed,
    TaskSurvey,
    across_tasks,
    learned_images,
    survey,
    surveyed_tasks,
    table_of,
)

# Files of a split that are named.
_NAMED = 10


def check_data_set(name: str, root: Path, overrides: Sequence[str], workers: int, allowed: Collection[str]) -> bool:
    """Checks a data set as it is without a recipe; whether nothing is wrong.

    Raises:
        RecipeError: Its options are wrong, or it has none of its splits.
    """
    component = resolve("dataset", name).component
    # As `train -t` reads the folder.
    told = {} if overrides else options_for(component, root)
    given = apply_overrides({"root": str(root), **told}, list(overrides))
    options.check(component, "dataset", given, name)
    datasets, absent, broken = dict[str, Dataset](), dict[str, RecipeError](), False
    for split in component.splits:
        try:
            datasets[split] = options.build(component, "dataset", given, {"split": split}, name)
        except RecipeError as error:
            # Data need not have every split that its format knows.
            absent[split] = error
        except MtframeError as error:
            say(f"{split}: {error}", err=True)
            broken = True
    if len(absent) == len(component.splits):
        raise next(iter(absent.values()))
    whole = not datasets or _report([_alone(name, root, datasets)], workers, allowed, {})
    for split, why in absent.items():
        say(f"{split}: not there ({why})")
    return whole and not broken


def check_recipe(file: str, overrides: Sequence[str], workers: int, allowed: Collection[str]) -> bool:
    """Checks the data of a recipe's tasks, at their sizes and for their heads; whether nothing is wrong.

    Raises:
        MtframeError: The recipe is wrong, or a part cannot be built.
    """
    recipe = load_recipe(file, list(overrides))
    assembly = Assembly(recipe.check())
    splits = dict.fromkeys(
        split
        for task in recipe.trained
        for split in recipe.resolve("dataset", recipe.tasks[task].dataset.name).component.splits
    )
    model = assembly.model(restoring=True)
    tasks = surveyed_tasks(assembly, list(splits), dict(model.heads.items()))
    return _report(tasks, workers, {*allowed, *recipe.train.allow}, learned_images(assembly))


def _alone(name: str, root: Path, datasets: dict[str, Dataset]) -> Surveyed:
    """A data set as a task, with the transform and the size of the preset that uses it by default."""
    info = next(iter(datasets.values())).info
    preset = default_preset(name)
    if preset is None:
        target = options.build(resolve("target", info.target).component, "target", {}, {"info": info}, info.target)
        return Surveyed(name, info.target, target, datasets)
    # No model is built, so the backbone is only a name.
    assembly = Assembly(assemble_recipe("none", [f"check={preset}:{root}"], []), {"check": info})
    transform = assembly.transform("check", train=False)
    at = f", {assembly.recipe.tasks['check'].size} pixels ({preset})" if isinstance(transform, PlacesWhole) else ""
    return Surveyed(name, f"{info.target}{at}", assembly.target("check"), datasets, transform)


def _report(tasks: Sequence[Surveyed], workers: int, allowed: Collection[str], learned: Learned) -> bool:
    surveys, elsewhere = list[TaskSurvey](), list(across_tasks(tasks, learned))
    for task in tasks:
        for dataset in task.datasets.values():
            # Every pixel, whatever the transform would do with.
            dataset.decode_size = None
        with _looking(task, workers) as look:
            surveys.append(survey(task, look))
        surveys[-1].found += [found for found in elsewhere if found.task == task.name]
        _say_survey(surveys[-1], task)
    wrong = [one for each in surveys for one in each.found if one.finding.severity == "error"]
    for one in wrong:
        excused = " (allowed)" if one.finding.name in allowed else ""
        say(f"error{excused}: {one.line()}", err=not excused)
    found = {one.finding.name for each in surveys for one in each.found}
    say([f"note: nothing was found that is called {name!r}, which is allowed" for name in sorted({*allowed} - found)])
    stopping = dict.fromkeys(one.finding.name for one in wrong if one.finding.name not in allowed)
    if stopping:
        say(f"what is meant as it is can be allowed: {' '.join(f'--allow {name}' for name in stopping)}", err=True)
    return not stopping


def _say_survey(said: TaskSurvey, task: Surveyed) -> None:
    for split, one in said.splits.items():
        unreadable = one.look.unreadable
        say(f"{split}: {one.look.images} images, {len(task.datasets[split].info.classes)} classes, "
            f"{len(unreadable)} images cannot be read")  # fmt: skip
        say([f"  note: {one_line(note)}" for note in one.notes])
        say([f"  {one_line(reason)}" for reason in unreadable[:_NAMED]], err=True)
    say(table_of(said))
    say([f"{one.finding.severity}: {one.line()}" for one in said.found if one.finding.severity != "error"])


@contextmanager
def _looking(task: Surveyed, workers: int) -> Iterator[Look]:
    """How to look at a task's images, with a bar on a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        images = sum(len(dataset) for dataset in task.datasets.values())
        bar = progress.add_task(one_line(task.name), total=images)
        yield Look(workers=0 if workers == 1 else workers, seen=lambda number: progress.advance(bar, number))
