"""The life of a run's tasks: one more, one less."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mtframe._labels import run_of
from mtframe._overrides import add_hooks, apply_overrides, parse_task
from mtframe._recognised import recognise
from mtframe.assembly import Assembly
from mtframe.errors import CheckpointError, RecipeError, pasted
from mtframe.recipe import Choice, Recipe, TaskRecipe
from mtframe.registry import name_of
from mtframe.run import KEPT, RunFolder, read_learned, write_learned
from mtframe.yaml import parse_yaml

from ._freezing import parts_within
from ._groups import still_meant
from ._log import LOG, log_to
from ._own import own_parts
from ._start import Start
from ._unchanged import check_same, check_whole

# Of an old task, what its evaluation reads: no answer depends on it.
_OF_DATA = (("dataset", "root"), ("batch_size",))


def add_task(
    path: str | os.PathLike[str],
    task: str,
    overrides: Sequence[str] = (),
    *,
    finetune: bool = False,
    hooks: Sequence[str] = (),
    components: Sequence[Any] = (),
) -> Assembly:
    """What trains a task in addition to those of a run, into a run of its own.

    The model is the old one with a head and a loss for the new task, and what the sharing scheme has for each task. By
    default all that is old is frozen, and the old tasks' outputs stay what they are, bit by bit. Their data is not
    needed.

    Args:
        path: The old run's folder, which stays as it is; the new one starts from its best weights.
        task: `NAME=PRESET:ROOT`, e.g. `scenes=scene-recognition:data/scenes`.
        overrides: `key=value` changes to the recipe, which for all else is the old one.
        finetune: Train the whole network on the new task's data, while distillation (`train.distil`) keeps the old
            tasks near what they are.
        hooks: Further observers, see `mtframe.load_recipe`.
        components: The classes that the old run's recipe was given from Python.

    Returns:
        The assembly for a `Trainer`.

    Raises:
        RecipeError: There is no such run, it has a task of that name, an override changes what old tasks are computed
            with, or they cannot stay what they are.
    """
    for component in components:
        name_of(component)
    old = _opened(path)
    recipe = _extended(old.recipe, os.fspath(path), task, overrides, finetune, hooks)
    recipe.check()
    assembly = Assembly(recipe)
    if not finetune:
        freeze = [*recipe.train.freeze, *_frozen(old, assembly, os.fspath(path))]
        train = recipe.train.model_copy(update={"freeze": list(dict.fromkeys(freeze))})
        assembly.recipe = recipe.model_copy(update={"train": train})
    return assembly


def remove_task(
    path: str | os.PathLike[str],
    task: str,
    out: RunFolder | str | os.PathLike[str],
    *,
    components: Sequence[Any] = (),
) -> RunFolder:
    """Makes a run of another one without one of its tasks; what the other tasks give stays the same, bit by bit.

    Args:
        path: The old run's folder, which stays as it is.
        task: The task that goes.
        out: The new run's folder.
        components: The classes that the old run's recipe was given from Python.

    Returns:
        The new run: recipe, labels and every checkpoint's weights, but no training to go on with.

    Raises:
        RecipeError: There is no such run or task, it is the last one or lends its images, or the others need its parts.
    """
    for component in components:
        name_of(component)
    old, new = RunFolder.open(path), out if isinstance(out, RunFolder) else RunFolder(out)
    new.check_new()
    before = _opened(path)
    assembly = Assembly(
        _reduced(before.recipe, os.fspath(path), task),
        {name: info for name, info in before.infos.items() if name != task},
    )
    checkpoints = {}
    for name in sorted(folder.name for folder in old.checkpoints.glob("[!.]*")):
        if name not in (f"best_{task}", KEPT):
            start = Start(old.checkpoints / name / "weights.safetensors", old, before)
            thresholds = {known: its for known, its in start.thresholds.items() if known != task}
            checkpoints[name] = _without(task, start, assembly), thresholds
    train = assembly.recipe.train
    groups = still_meant(assembly.model(restoring=True), train)
    assembly.recipe = assembly.recipe.model_copy(update={"train": train.model_copy(update={"groups": groups})})
    if not checkpoints:
        raise CheckpointError(f"{old.checkpoints}: no checkpoint, so there is nothing to take over")
    new.create(assembly.recipe, assembly.infos, checkpoints)
    with new.writing(), log_to(new.log_file):
        if (learned := read_learned(old.path)) is not None:
            write_learned(new.path, learned)
        LOG.info("made of %s without its task %s", path, task)
    return new


def _opened(path: str | os.PathLike[str]) -> Assembly:
    run = RunFolder.open(path)
    return Assembly(run.checked_recipe(), run.infos())


def _found(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """The data set that reads a new task's folder, by what lies there, as it would stand in the recipe; it is told."""
    found = recognise(name, part, LOG.warning)
    return {} if found == part else {"dataset": found["dataset"]}


def _extended(
    old: Recipe, run: str, task: str, overrides: Sequence[str], finetune: bool, hooks: Sequence[str]
) -> Recipe:
    """The old run's recipe with one more task, which alone is trained."""
    name, part = parse_task(task)
    if name in old.tasks:
        raise RecipeError(
            f"{name!r}: {run} has a task of that name already; its tasks are {', '.join(old.tasks)}. Choose another "
            "name for the new one"
        )
    _check_overrides(overrides, old, name)
    plain = parse_yaml(old.to_yaml(), run)
    # Presets have filled these, and are not asked again.
    presets = {known: its.pop("preset", None) for known, its in plain["tasks"].items()}
    plain["tasks"][name] = part
    # Which data set reads the new task's folder; an override may name another one.
    changed = apply_overrides({"tasks": {name: part}}, [one for one in overrides if one.startswith(f"tasks.{name}.")])
    plain["tasks"][name] = {**part, **_found(name, changed["tasks"][name])}
    plain["hooks"] = [hook for hook in plain["hooks"] if not _follows(hook, () if finetune else old.tasks)]
    # What makes one gradient of several tasks', or compares them, has nothing to do for one.
    plain["balancer"] = "sum"
    plain["train"] |= {"balance_at": "parameters", "exact_gradients": False, "gradients_every": None, "groups": []}
    plain["train"] |= {"start": run, "tasks": [name], "freeze": [], "distil": 1.0 if finetune else None}
    recipe = Recipe.from_plain(apply_overrides(add_hooks(plain, hooks, ()), overrides))
    start = run_of(recipe.train.start) if recipe.train.start is not None else None
    if start is None or start.resolve() != Path(run).resolve():
        raise RecipeError(f"train.start: must be {run} or weights in it; they are what is added to")
    if recipe.train.tasks != [name]:
        got = "null" if recipe.train.tasks is None else f"[{', '.join(recipe.train.tasks)}]"
        raise RecipeError(
            f"train.tasks: must be [{name}], got {got}; the new task alone is trained. To train old ones too, train a "
            f"recipe of all: mtframe train RECIPE --from {pasted(run)}"
        )
    if recipe.train.distil is not None and not finetune:
        raise RecipeError(
            "train.distil: without --finetune all that is old stays as it is, so there is nothing to distil; leave it "
            "out, or add --finetune"
        )
    named = {
        known: its.model_copy(update={"preset": presets.get(known, its.preset)}) for known, its in recipe.tasks.items()
    }
    return recipe.model_copy(update={"tasks": named})


def _check_overrides(overrides: Sequence[str], old: Recipe, task: str) -> None:
    """Raises RecipeError if one changes what an old task's answers are computed with."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        whole, *within = key.split(".")
        theirs = whole == "tasks" and (not within or (within[0] in old.tasks and tuple(within[1:]) not in _OF_DATA))
        if theirs or whole in ("backbone", "sharing"):
            raise RecipeError(
                f"{key}: the old tasks' answers are computed with it, and it stays as it was. What can be changed is "
                f"tasks.{task}, train and balancer; and of old tasks dataset.root and batch_size, for their evaluation"
            )


def _frozen(old: Assembly, new: Assembly, run: str) -> list[str]:
    """The parts of the new model that hold all that is old.

    Raises:
        RecipeError: The old tasks would not give the same outputs.
    """
    start = Start.open(str(new.recipe.train.start))
    model = new.model(restoring=True)
    loaded = start.load(model, new)
    added = [task for task in new.tasks if task not in old.tasks]
    own = [part for part, task in own_parts(model).items() if task in added]
    way = f"{', '.join(added)} cannot be added to {run} with all else kept as it is"
    hint = ". With --finetune it can, which keeps the old tasks about as good as they are"
    check_whole(loaded, way, hint)
    check_same(start.model(), model, {task: part.size for task, part in old.recipe.tasks.items()}, way, hint)
    kept = {name for name, source in loaded.sources.items() if name == source}
    return list(parts_within(model, kept, own))


def _reduced(old: Recipe, run: str, task: str) -> Recipe:
    """The old run's recipe without one task."""
    if task not in old.tasks:
        raise RecipeError(f"{task!r}: no such task; the tasks of {run} are {', '.join(old.tasks)}")
    if len(old.tasks) == 1:
        raise RecipeError(f"{task!r}: the only task of {run}; a run without any is none")
    if borrowers := [name for name, part in old.tasks.items() if part.images == task]:
        raise RecipeError(f"{task!r}: {', '.join(borrowers)} uses its images (images: {task}), so it cannot go first")
    train = old.train.model_copy(update={"start": run, "tasks": None, "freeze": [], "distil": None})
    if len(old.tasks) == 2:
        # One task has no gradients to compare.
        train = train.model_copy(update={"gradients_every": None})
    tasks = _in_some_steps({name: part for name, part in old.tasks.items() if name != task})
    hooks = [hook for hook in old.hooks if not _follows(hook.plain(), (task,))]
    reduced = old.model_copy(update={"tasks": tasks, "balancer": _balancing(old, task), "hooks": hooks, "train": train})
    known = reduced.findings()
    allow = [name for name in train.allow if known is None or name in known]
    return reduced.model_copy(update={"train": train.model_copy(update={"allow": allow})})


def _balancing(old: Recipe, task: str) -> Choice:
    """The balancer, without what its options say of one task."""
    whole = old.tasks if old.train.tasks is None or old.train.distil is not None else old.trained
    order = [name for name in old.tasks if name in whole]

    def without(value: Any) -> Any:
        if isinstance(value, Mapping) and set(value) <= set(old.tasks):
            return {name: its for name, its in value.items() if name != task}
        return value

    def shorter(value: Any) -> Any:
        if isinstance(value, list) and len(value) == len(order) and task in order:
            return [its for name, its in zip(order, value, strict=True) if name != task]
        return value

    options = dict(old.balancer.options)
    if old.balancer.name.partition("/")[0].partition("@")[0] == "torchjd":
        # An aggregator's constructor knows no names: its lists have a number per task (see TorchJD).
        arguments = options.get("arguments") or {}
        options |= {"arguments": {key: shorter(value) for key, value in arguments.items()}} if arguments else {}
    else:
        options = {key: without(value) for key, value in options.items()}
    return Choice(name=old.balancer.name, options=options)


def _in_some_steps(tasks: Mapping[str, TaskRecipe]) -> dict[str, TaskRecipe]:
    """The tasks, as often in relation to each other as they took part, but at least one of them in every step."""
    least = min(part.every for part in tasks.values() if part.images is None)
    return {name: part.model_copy(update={"every": max(1, part.every // least)}) for name, part in tasks.items()}


def _follows(hook: Any, tasks: Collection[str]) -> bool:
    """Whether an observer follows one of these tasks, as early stopping may be."""
    return isinstance(hook, Mapping) and hook.get("task") in tasks


def _without(task: str, start: Start, assembly: Assembly) -> dict[str, Tensor]:
    """A checkpoint's weights for the model without a task."""
    before, model = start.model(), assembly.model(restoring=True)
    loaded = start.load(model, assembly)
    way = f"{task} cannot be removed"
    check_whole(loaded, way, dropping=[part for part, its in own_parts(before).items() if its == task])
    check_same(before, model, {name: part.size for name, part in assembly.recipe.tasks.items()}, way)
    return model.state_dict()
