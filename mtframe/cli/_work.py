"""What several commands do on a terminal: train, evaluate, print tables. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtframe.assembly import Assembly, observe
from mtframe.cli._app import say
from mtframe.errors import TrainingError, one_line, pasted
from mtframe.evaluation import Evaluation
from mtframe.hooks import Hooks
from mtframe.recipe import CheckedRecipe, Recipe
from mtframe.run import RunFolder
from mtframe.survey import lines_of, table_of
from mtframe.training import Progress, Trainer

CONSOLE = Console()

# Training images of which it is worth a word that they are looked at: about two seconds.
_MANY = 20_000

# Classes that are listed where a training begins; the log has all.
_CLASSES = 8


def train_recipe(checked: CheckedRecipe, out: Path | None, name: str, *, strict: bool = False) -> RunFolder:
    """Trains a checked recipe into a new run and prints its scores."""
    with new_run(out, Path("runs") / name) as run:
        hooks = _observers(checked.recipe, strict)
        _train(Assembly(checked), run, hooks)
    return run


@contextmanager
def new_run(out: Path | None, default: Path) -> Iterator[RunFolder]:
    """The folder of a run to come, which nobody else writes into; removed again if there is no run in it at the end.

    Args:
        out: The folder that the user names.
        default: The one to take otherwise, with the first free number behind its name.

    Raises:
        RecipeError: There is something in it, it cannot be made, or another process writes there.
    """
    run = RunFolder.reserve(out or default, numbered=out is None)
    with run.writing():
        # Another process may have been faster.
        run.check_new()
        yield run


def train_assembly(assembly: Assembly, run: RunFolder, *, strict: bool = False) -> None:
    """Trains what is assembled into a new run and prints its scores."""
    _train(assembly, run, _observers(assembly.recipe, strict))


def _train(assembly: Assembly, run: RunFolder, hooks: Hooks) -> None:
    for task in assembly.recipe.trained:
        # What evaluation will need is looked at now, not after hours of training.
        assembly.metrics(task, "val")
    trainer = Trainer(assembly, run, hooks)
    # Made only to see that it can be: what no check foresaw fails here, before there is a folder.
    _ = trainer.batches[0]
    _fit(trainer)


def resume_run(path: Path, overrides: Sequence[str] = (), hooks: Sequence[str] = (), *, strict: bool = False) -> None:
    """Goes on with a run that was stopped."""
    run = RunFolder.open(path)
    with run.writing():
        checked = run.take_up(overrides, hooks)
        trainer = Trainer(Assembly(checked, run.infos()), run, _observers(checked.recipe, strict), resume=True)
        say(run.announced_changes())
        _fit(trainer)


def print_scores(evaluations: Mapping[str, Evaluation]) -> None:
    """A table of every metric of every task."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task")
    table.add_column("metric")
    table.add_column("score", justify="right")
    for task, result in evaluations.items():
        for position, (name, value) in enumerate(result.values.items()):
            style = "bold" if name == result.primary else ""
            table.add_row(_cell(task if position == 0 else ""), _cell(name), number(value), style=style)
        if result.skipped:
            table.add_row("", "images skipped (unreadable)", str(len(result.skipped)))
        table.add_section()
    CONSOLE.print(table)
    say([f"{task}: {one_line(note)}" for task, result in evaluations.items() for note in result.remarks])


def number(value: float) -> str:
    """A metric as people read it: a count, or four digits, or n/a where the data cannot resolve it."""
    if isinstance(value, int):
        return str(value)
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def sibling_folder(run: Path, suffix: str) -> Path:
    """A folder next to a run's, named after it with a suffix."""
    named = run if run.name not in ("", "..") else run.resolve()
    return named.with_name(f"{named.name}-{suffix}")


def _cell(name: str) -> Text:
    # A name may hold [brackets], which are no markup, and more than that.
    return Text(one_line(name))


def _print_kept(trainer: Trainer) -> None:
    """A table of what became of the tasks that distillation keeps."""
    distillation, evaluated = trainer.parts.distillation, trainer.evaluations.tasks
    kept = distillation.tasks if distillation is not None else ()
    if not any(task in evaluated for task in kept):
        return
    before = trainer.history[0]["tasks"]
    after = next(one for one in trainer.history if one["step"] == trainer.best_steps["best"])
    table = Table(box=box.SIMPLE_HEAD)
    for column, justify in (("kept task", "left"), ("metric", "left"), ("before", "right"), ("best", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for task in evaluated:
        for position, (name, value) in enumerate(before[task].items() if task in kept else ()):
            shown = _cell(task if position == 0 else ""), _cell(name)
            table.add_row(*shown, number(value), number(after["tasks"][task][name]))
    CONSOLE.print(table)
    say(f"best is of step {after['step']}")


def _observers(recipe: Recipe, strict: bool) -> Hooks:
    hooks = observe(recipe, strict=strict)
    hooks.register(Progress(CONSOLE), "progress")
    return hooks


def _fit(trainer: Trainer) -> None:
    tasks = ", ".join(f"{task} ({len(source.dataset)} images)" for task, source in trainer.batches.sources.items())
    parts, evaluations = trainer.parts, trainer.evaluations
    say(parts.loaded.shown() if parts.loaded is not None else [])
    for task, why in evaluations.unevaluated.items():
        say(f"{task}: what becomes of it is not measured: {why}")
    if parts.distillation is None and (
        kept := [task for task in trainer.assembly.tasks if task not in evaluations.tasks]
    ):
        say(f"kept as they are: {', '.join(kept)}")
    say(f"training {tasks} on {parts.device} for {trainer.steps} steps into {trainer.run.path}")
    say([f"warning: {text}" for text in trainer.cautions])
    if trainer.step == 0 and (images := sum(len(each.dataset) for each in trainer.batches.sources.values())) > _MANY:
        say(f"reading some kilobytes of each of {images:,} images, by which the run recognises them later")
    for survey in trainer.surveys:
        say(table_of(survey, classes=_CLASSES))
        say(lines_of(survey, notes=False))
    try:
        print_scores(trainer.fit())
        _print_kept(trainer)
    except OSError as error:
        raise TrainingError(
            f"{error.filename or trainer.run.path}: {error.strerror or error}. Training stopped at step "
            f"{trainer.step}; go on from the last checkpoint with: mtframe train --resume {pasted(trainer.run.path)}"
        ) from error
    for name, why in trainer.hooks.disabled.items():
        say(f"warning: {name} was disabled: {why}; see {trainer.run.log_file}", err=True)
    if trainer.stopped is not None:
        say(f"ended at step {trainer.step} of {trainer.steps}: {trainer.stopped}")
    say(f"run: {trainer.run.path}")
