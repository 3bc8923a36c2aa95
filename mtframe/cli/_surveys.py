"""What `mtframe data check` does: surveys of a data set, or of a recipe's tasks. Imports torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from mtframe import options
from mtframe._fit import findings_of, strange_findings, targets_of
from mtframe._recognised import options_for, targets_of_preset
from mtframe.assembly import Assembly
from mtframe.cli._app import say
from mtframe.cli.data import fitting_preset
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
    ask_head,
    learned_images,
    survey,
    surveyed_tasks,
    table_of,
)

# Files of a split that are named.
_NAMED = 10

# Images of a split for which a head is asked what it can learn.
_LEARNABLE = 2000


def check_data_set(
    name: str,
    root: Path,
    overrides: Sequence[str],
    workers: int,
    allowed: Collection[str],
    preset: str | None = None,
    size: int | None = None,
) -> bool:
    """Checks a data set as it is without a recipe; whether nothing is wrong.

    Args:
        name: Of the data set.
        root: Its folder.
        overrides: Its options.
        workers: Processes that look at it.
        allowed: Names of findings that are no mistake.
        preset: Whose transform and size a task would have; None for one that fits the data set.
        size: Pixels that inputs would have; None for the preset's.

    Raises:
        RecipeError: Its options are wrong, it has none of its splits, or there is no such preset or finding.
    """
    component = resolve("dataset", name).component
    targets = [resolve("target", target).component for target in targets_of(component)]
    _check_allowed(allowed, findings_of([component, *targets]))
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
    whole = not datasets or _report([_alone(name, root, datasets, preset, size)], workers, allowed)
    for split, why in absent.items():
        say(f"{split}: not there ({why})")
    return whole and not broken


def check_recipe(file: str, overrides: Sequence[str], workers: int, allowed: Collection[str]) -> bool:
    """Checks the data of a recipe's tasks, at their sizes and for their heads; whether nothing is wrong.

    Raises:
        MtframeError: The recipe is wrong, or a part cannot be built.
    """
    recipe = load_recipe(file, list(overrides))
    _check_allowed(allowed, recipe.findings())
    assembly = Assembly(recipe.check())
    splits = dict.fromkeys(
        split
        for task in recipe.trained
        for split in recipe.resolve("dataset", recipe.tasks[task].dataset.name).component.splits
    )
    heads, tasks = dict(assembly.model(restoring=True).heads.items()), surveyed_tasks(assembly, list(splits))
    return _report(tasks, workers, {*allowed, *recipe.train.allow}, heads, learned_images(assembly))


def _check_allowed(allowed: Collection[str], known: Sequence[str] | None) -> None:
    if wrong := strange_findings("--allow", allowed, known):
        raise RecipeError("\n".join(wrong))


def _alone(name: str, root: Path, datasets: dict[str, Dataset], preset: str | None, size: int | None) -> Surveyed:
    """A data set as a task, with the transform and the size of a preset."""
    info = next(iter(datasets.values())).info
    if preset is not None:
        works = targets_of_preset(resolve("preset", preset).component)
        if info.target not in works:
            either = " or ".join(map(repr, sorted(works))) or "no kind that it says"
            raise RecipeError(
                f"-t {preset}: works on targets of kind {either}, but the data set {name!r} gives {info.target!r}"
            )
    preset = preset or fitting_preset(name, info.target)
    if preset is None:
        if size is not None:
            raise RecipeError(f"--size: no preset is for targets of kind {info.target!r}; name one with -t")
        target = options.build(resolve("target", info.target).component, "target", {}, {"info": info}, info.target)
        return Surveyed(name, info.target, target, datasets)
    # No model is built, so the backbone is only a name.
    sized = [] if size is None else [f"tasks.check.size={size}"]
    recipe = assemble_recipe("none", [f"check={preset}"], [f"tasks.check.dataset.name={name}", *sized])
    assembly = Assembly(recipe, {"check": info})
    transform = assembly.transform("check", train=False)
    at = f", {assembly.recipe.tasks['check'].size} pixels ({preset})" if isinstance(transform, PlacesWhole) else ""
    return Surveyed(name, f"{info.target}{at}", assembly.target("check"), datasets, transform)


def _report(
    tasks: Sequence[Surveyed],
    workers: int,
    allowed: Collection[str],
    heads: Mapping[str, nn.Module] | None = None,
    learned: Learned | None = None,
) -> bool:
    surveys, elsewhere = list[TaskSurvey](), list(across_tasks(tasks, learned or {}))
    for task in tasks:
        for dataset in task.datasets.values():
            # Every pixel, whatever the transform would do with.
            dataset.decode_size = None
        with _looking(task, workers) as look:
            surveys.append(survey(task, look))
        surveys[-1].found += [found for found in elsewhere if found.task == task.name]
        if heads is not None:
            ask_head(task, surveys[-1], heads[task.name], _LEARNABLE)
        _say_survey(surveys[-1])
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


def _say_survey(said: TaskSurvey) -> None:
    say(table_of(said))
    for split, one in said.splits.items():
        say([f"{split}: {one_line(reason)}" for reason in (*one.look.unreadable, *one.look.wrong)[:_NAMED]], err=True)
    # What is said of several splits is said once.
    notes: dict[str, list[str]] = {}
    for split, one in said.splits.items():
        for note in one.notes:
            notes.setdefault(note, []).append(split)
    say([f"note: {said.name}, {' and '.join(splits)}: {one_line(note)}" for note, splits in notes.items()])
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
