"""The recipe: a whole experiment in one flat YAML file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from mtframe import options
from mtframe._fit import (
    check_member,
    findings_of,
    mismatches,
    no_labels,
    no_target,
    strange_findings,
    targets_of,
    with_hint,
)
from mtframe._overrides import add_hooks, parse_task
from mtframe._overrides import apply_overrides as apply_overrides
from mtframe._presets import LENT, fill, lend
from mtframe._recipe_keys import CONFIG, Part, Parts, TaskName
from mtframe._recipe_keys import Choice as Choice
from mtframe._recipe_keys import GroupRecipe as GroupRecipe
from mtframe._recipe_keys import TaskRecipe as TaskRecipe
from mtframe._recipe_keys import TrainOptions as TrainOptions
from mtframe._recipe_keys import check_task_name as check_task_name
from mtframe._recognised import recognise
from mtframe._trust import check_trusted, code_of, named_in, recorded, within
from mtframe.errors import Code, RecipeError
from mtframe.files import is_run
from mtframe.paths import regular
from mtframe.registry import (
    Lookups,
    Resolved,
    did_you_mean,
    in_texts,
    local_file,
    only_files,
    split_local,
    texts_in,
)
from mtframe.yaml import MOST_BYTES, dump_yaml, parse_yaml

# What of a task is a component, and of which kind.
_SLOTS = {"dataset": "dataset", "transform": "transform", "head": "head", "loss": "loss"}

# What stands for parts that a recipe need not name.
_DEFAULTS = {"sharing": "network", "balancer": "sum"}
_OBSERVERS = ("csv-logger",)

# Kinds that only training needs: a run is evaluated and predicts without.
TRAINING_ONLY = ("balancer", "schedule", "hooks")


class Recipe(BaseModel):
    """A whole experiment, with nothing left to presets.

    Attributes:
        backbone: What all tasks share.
        sharing: How much of it each task runs through.
        balancer: How the tasks' losses become one.
        tasks: The tasks by name.
        hooks: What observes the training.
        train: How training runs.
        base: Folder of the recipe's file: components in files are relative to it, but roots of data sets to
            the current folder.
    """

    model_config = CONFIG

    backbone: Part
    sharing: Part = Choice(name=_DEFAULTS["sharing"])
    balancer: Part = Choice(name=_DEFAULTS["balancer"])
    tasks: Annotated[dict[TaskName, TaskRecipe], Field(min_length=1)]
    hooks: Parts = [Choice(name=name) for name in _OBSERVERS]
    train: TrainOptions = TrainOptions()
    base: Path | None = Field(default=None, exclude=True, repr=False)
    _lookups: Lookups = PrivateAttr(default_factory=Lookups)

    @property
    def trained(self) -> tuple[str, ...]:
        """The tasks that are trained, in the order of all."""
        chosen = self.train.tasks
        return tuple(name for name in self.tasks if chosen is None or name in chosen)

    def seeing(self, task: str) -> tuple[object, ...]:
        """What a task's answer to a picture depends on besides weights: equal for recipes in which it looks alike."""
        part = self.tasks[task]
        lender = self.tasks[part.images or task]
        return lender.transform, lender.size, part.flip_test, tuple(part.test_scales)

    def choices(self) -> Iterator[tuple[str, str, Choice]]:
        """Every component that is named: (place in the recipe, kind, choice)."""
        yield "backbone", "backbone", self.backbone
        yield "sharing", "sharing", self.sharing
        yield "balancer", "balancer", self.balancer
        yield "train.schedule", "schedule", self.train.schedule
        for name, task in self.tasks.items():
            for slot, kind in _SLOTS.items():
                if task.images is None or slot not in LENT:
                    yield f"tasks.{name}.{slot}", kind, getattr(task, slot)
            if task.target is not None:
                yield f"tasks.{name}.target", "target", task.target
            for number, metric in enumerate(task.metrics):
                yield f"tasks.{name}.metrics.{number}", "metric", metric
        for number, observer in enumerate(self.hooks):
            yield f"hooks.{number}", "hooks", observer

    def named_files(self) -> Iterator[tuple[str, str]]:
        """Every name of a component in a file, with its place: of a part, of a preset, or in an option."""
        names: list[tuple[str, str]] = [
            (f"tasks.{task}.preset", part.preset) for task, part in self.tasks.items() if part.preset
        ]
        for where, _, choice in self.choices():
            names.append((where, choice.name))
            for option, value in choice.options.items():
                names += [(f"{where}.{option}", text) for text in texts_in({option: value})]
        return ((where, name) for where, name in names if split_local(name) is not None)

    def files(self) -> frozenset[Path]:
        """The Python files that it names, which are all that may be run for it."""
        named = {local[0] for _, name in self.named_files() if (local := split_local(name)) is not None}
        # What an option names is relative to the current folder.
        return frozenset(path.resolve() for file in named for path in (file, (self.base or Path()) / file))

    def resolve(self, kind: str, name: str) -> Resolved:
        """What a name in this recipe stands for; looked up once, whoever asks: check, assembly, a run's origins.

        Raises:
            PluginError: It cannot be found or imported.
        """
        with only_files(self.files() if split_local(name) else ()):
            return self._lookups.resolve(kind, name, self.base)

    def check(self, *, training: bool = True) -> CheckedRecipe:
        """Imports every component, checks its options, and whether a task's parts agree on a kind of target.

        Args:
            training: Whether it is to be trained; otherwise what only training needs is left alone: balancer, schedule
                and hooks.

        Raises:
            RecipeError: With all problems, one a line.
        """
        self._lookups.forget_files()
        found: dict[str, Resolved] = {}
        parts: dict[str, CheckedPart] = {}
        wrong: list[str] = []
        for where, kind, choice in self.choices():
            if kind in TRAINING_ONLY and not training:
                continue
            try:
                resolved = self.resolve(kind, choice.name)
                found[where] = resolved
                check_member(resolved)
                parts[where] = CheckedPart(resolved, options.check(resolved.component, kind, choice.options, where))
            except RecipeError as error:
                text = with_hint(str(error), where, found.get(where))
                wrong.append(text if text.startswith(where) else f"{where}: {text}")
        wrong += [problem for name in self.tasks for problem in mismatches(name, found)]
        wrong += [problem for name, task in self.tasks.items() if task.images for problem in no_labels(name, found)]
        for name, task in self.tasks.items():
            wrong += no_target(name, found, self.resolve) if task.target is None else []
        if training and self.train.allow and not wrong:
            wrong += strange_findings("train.allow", self.train.allow, self.findings())
        wrong += [*self._untrainable(), *self._skipping(parts.get("train.schedule"))] if training else []
        if wrong:
            raise RecipeError("\n".join(wrong))
        return CheckedRecipe(self, parts)

    def findings(self) -> tuple[str, ...] | None:
        """What may be found in the data of its tasks, by name: what `train.allow` takes; None where nobody knows.

        Raises:
            PluginError: A data set or a kind of target cannot be found or imported.
        """
        parts = []
        for task in self.tasks.values():
            dataset = self.resolve("dataset", task.dataset.name).component
            targets = [task.target.name] if task.target is not None else targets_of(dataset)
            parts += [dataset, *(self.resolve("target", target).component for target in targets)]
        return findings_of(parts)

    def _untrainable(self) -> list[str]:
        """What is wrong with the choice of what is trained."""
        train, there = self.train, ", ".join(self.tasks)
        wrong = [
            f"train.tasks: no task {task!r}{did_you_mean(task, self.tasks) or f'; the tasks are {there}'}"
            for task in train.tasks or ()
            if task not in self.tasks
        ]
        idle = [task for task in self.tasks if task not in self.trained]
        if idle and train.start is None:
            wrong.append(
                f"train.tasks: {idle[0]!r} is not trained, so it must come from a run: name it with train.start=RUN"
            )
        if train.distil is not None and not idle:
            wrong.append(
                "train.distil: keeps tasks that are not trained, and all are; train.tasks names those that are"
            )
        return wrong

    def _skipping(self, schedule: CheckedPart | None) -> list[str]:
        """The tasks that are to take part in some steps only, if the schedule does not ask which."""
        if schedule is None or "every" in options.wired_names(schedule.resolved.component, "schedule"):
            return []
        return [
            f"tasks.{name}.every: the schedule {schedule.resolved.name!r} does not let a task skip steps; leave it "
            "out, or choose one that does, as train.schedule=joint"
            for name, task in self.tasks.items()
            if task.every > 1 and task.images is None
        ]

    def to_yaml(self) -> str:
        """The recipe as a file's text; `load_recipe` reads the same recipe from it."""
        tasks = {name: _plain(task) for name, task in self.tasks.items()}
        whole = {slot: getattr(self, slot).plain() for slot in ("backbone", "sharing", "balancer")}
        hooks = [observer.plain() for observer in self.hooks]
        parts = {"schedule": self.train.schedule.plain(), "groups": [group.plain() for group in self.train.groups]}
        train = self.train.model_dump() | parts
        return dump_yaml({**whole, "tasks": tasks, "hooks": hooks}) + dump_yaml({"train": train}, flow=False)

    def renamed(self, rename: Callable[[str], str]) -> Self:
        """The recipe with every name of a component or preset changed, and every text in an option."""

        def part(choice: Choice) -> Choice:
            return Choice(name=rename(choice.name), options=in_texts(choice.options, rename))

        tasks = {
            name: task.model_copy(
                update={slot: part(getattr(task, slot)) for slot in _SLOTS}
                | {"metrics": [part(metric) for metric in task.metrics], "preset": task.preset and rename(task.preset)}
                | {"target": task.target and part(task.target)}
            )
            for name, task in self.tasks.items()
        }
        whole = {slot: part(getattr(self, slot)) for slot in ("backbone", "sharing", "balancer")}
        hooks, train = [part(hook) for hook in self.hooks], {"schedule": part(self.train.schedule)}
        return self.model_copy(
            update={**whole, "tasks": tasks, "hooks": hooks, "train": self.train.model_copy(update=train)}
        )

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], base: Path | None = None, *, presets: bool = True) -> Self:
        """The recipe that a YAML document describes, filled from presets.

        Args:
            plain: As the loader gives it. From Python, a class may stand where a document has its name: a component of
                an installed distribution, or one that the program itself imports or defines.
            base: Folder that components in files are relative to.
            presets: Whether they fill what is left out; nothing is left out of a run's recipe.

        Raises:
            RecipeError: Keys are unknown, missing or of the wrong type: all of them, one a line.
        """
        fields = [field for field in TaskRecipe.model_fields if field != "preset"]
        kinds = {**_SLOTS, "target": "target", "metrics": "metric"}
        lookups = Lookups()
        filled, wrong = fill(plain, base, fields, kinds, lookups) if presets else (deepcopy(dict(plain)), {})
        for slot, default in _DEFAULTS.items():
            # `balancer.weights.faces=2` goes into the one that is there without being named.
            if isinstance(filled.get(slot), dict) and "name" not in filled[slot]:
                filled[slot] = {"name": default, **filled[slot]}
        if "base" in filled:
            raise RecipeError("base: unknown option")
        if renamed := [name for name, task in _tasks_of(plain).items() if "task" in task]:
            lines = (f"tasks.{name}.task: is called preset; write tasks.{name}.preset" for name in renamed)
            raise RecipeError("\n".join(lines))
        if isinstance(train := filled.get("train"), dict) and "temperature" in train:
            raise RecipeError(
                "train.temperature: is an option of the schedule now; write "
                f"train.schedule={{name: temperature, temperature: {train['temperature'] or 5}}}, or leave it out"
            )
        if unlent := lend(filled, plain):
            raise RecipeError("\n".join(unlent))
        try:
            recipe = cls.model_validate(filled, context={"base": base, "kept": not presets})
        except ValidationError as error:
            problems = options.problems(error, filled, "", _known)
            raise RecipeError("\n".join(_report(problems, filled, wrong))) from None
        if problems := [*wrong.values(), *_never_training(recipe)]:
            raise RecipeError("\n".join(problems))
        recipe = recipe.model_copy(update={"base": base})
        recipe._lookups = lookups
        return recipe


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """A component that a recipe names, found and with its options checked.

    Attributes:
        resolved: What its name stands for.
        options: As its constructor takes them.
    """

    resolved: Resolved
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedRecipe:
    """A recipe of which every part was found and fits the others: what an assembly builds from.

    Attributes:
        recipe: The recipe.
        parts: Its parts by place, as `tasks.faces.head`.
    """

    recipe: Recipe
    parts: Mapping[str, CheckedPart]


def load_recipe(path: str | Path, overrides: Sequence[str] = (), hooks: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and fills from presets what it leaves out.

    Args:
        path: A YAML file.
        overrides: `key=value` texts, see `apply_overrides`.
        hooks: Further observers: names, or mappings in YAML as `{name: early-stopping, patience: 3}`.

    Raises:
        RecipeError: The file cannot be read, is not YAML, or is not a recipe.
        UntrustedError: It lies in a run and names Python files there that the user has not agreed to run.
    """
    plain, folder = read_recipe(path), Path(path).resolve().parent
    # In a run, what the user names is not the run's.
    rename = name_from_here if is_run(folder) else None
    with in_file(path):
        changed = apply_overrides(add_hooks(plain, hooks, _OBSERVERS, rename), overrides, rename)
    # Before presets are asked, which are code.
    check_trusted(code_beside(path, plain, changed), folder)
    with in_file(path):
        return Recipe.from_plain(changed, folder)


def name_from_here(name: str) -> str:
    """The name of a component in a file that is relative to the current folder, in full; other names as they are."""
    return local_file(name, Path.cwd())


def code_beside(path: str | Path, plain: Mapping[str, Any], changed: Mapping[str, Any] | None = None) -> list[Code]:
    """The Python files that a recipe names, if it lies in a run: what is not in one, its user has written or read.

    Args:
        path: Its file.
        plain: What is in it, as plain YAML values.
        changed: That with the user's changes, who may name files outside of the run too.

    Raises:
        RecipeError: One of them is not the run's own.
    """
    folder = Path(path).resolve().parent
    if not is_run(folder):
        return []
    named = [*named_in(plain, folder), *within(named_in(changed or {}, folder), folder)]
    with in_file(path):
        return code_of(named, folder, recorded(folder))


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The plain YAML values of a recipe's file. Raises RecipeError if it is none."""
    try:
        text = regular(path, MOST_BYTES).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from None
    plain = parse_yaml(text, str(path))
    if not isinstance(plain, dict):
        got = "nothing" if plain is None else repr(plain)[:80]
        raise RecipeError(f"{path}: expected keys such as 'backbone' and 'tasks', got {got}")
    return plain


@contextmanager
def in_file(path: str | Path) -> Iterator[None]:
    """Says of which file an error of its recipe is."""
    try:
        yield
    except RecipeError as error:
        raise type(error)(f"{path}:\n" + str(error)) from error.__cause__


def assemble_recipe(
    backbone: str,
    tasks: Sequence[str],
    overrides: Sequence[str] = (),
    hooks: Sequence[str] = (),
    *,
    data: str | None = None,
    said: Callable[[str], None] = lambda text: None,
) -> Recipe:
    """Makes a recipe from names, without a file.

    Args:
        backbone: Name of the backbone, e.g. `timm/resnet18`.
        tasks: `NAME=PRESET:ROOT` each, e.g. `faces=face-recognition:data/lfw`. Which data set reads ROOT is found out
            by what lies there, unless an override names one.
        overrides: `key=value` texts, see `apply_overrides`.
        hooks: Further observers, see `load_recipe`.
        data: Folder whose subfolder of the data set's name is the root where a task gives none.
        said: Is told which data set was found for a root.

    Raises:
        RecipeError: What is written is not a recipe, or several data sets can read a root.
    """
    named: dict[str, Any] = {}
    for name, task in map(parse_task, tasks):
        if name in named:
            raise RecipeError(f"task {name!r} is given twice; tasks need different names")
        named[name] = task
    plain = apply_overrides(add_hooks({"backbone": backbone, "tasks": named}, hooks, _OBSERVERS), overrides)
    plain["tasks"] = {
        name: recognise(name, task, said) if isinstance(task, dict) and name in named else task
        for name, task in plain["tasks"].items()
    }
    recipe = Recipe.from_plain(plain)
    if data is None:
        return recipe
    rooted = {name: _rooted(task, data) for name, task in recipe.tasks.items()}
    return recipe.model_copy(update={"tasks": rooted})


def _rooted(task: TaskRecipe, data: str) -> TaskRecipe:
    """The task with a root for its data set, if it has none: a folder of the data set's name in `data`."""
    name = task.dataset.name
    root = f"{data}/{name.partition('@')[0]}"
    rooted = Choice(name=name, options={"root": root, **task.dataset.options})
    return task.model_copy(update={"dataset": rooted})


def _plain(task: TaskRecipe) -> dict[str, Any]:
    """A task as YAML writes it, without what it has from another task."""
    plain = {
        **({"preset": task.preset} if task.preset else {}),
        **({"images": task.images} if task.images else {}),
        **({"target": task.target.plain()} if task.target else {}),
        **{slot: getattr(task, slot).plain() for slot in _SLOTS},
        "metrics": [metric.plain() for metric in task.metrics],
        **task.model_dump(include={"size", "batch_size", "every", "flip_test", "test_scales"}),
    }
    return {key: value for key, value in plain.items() if task.images is None or key not in LENT}


def _never_training(recipe: Recipe) -> list[str]:
    """What is wrong with a recipe in which a step would train nothing."""
    every = {name: task.every for name, task in recipe.tasks.items() if task.images is None}
    if (least := min(every.values(), default=1)) == 1:
        return []
    name = min(every, key=every.__getitem__)
    return [f"tasks.{name}.every: must be 1 for one task at least, or steps would train none; got {least}"]


def _tasks_of(plain: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The tasks of a recipe as plain YAML values that may be wrong in any way."""
    tasks = plain.get("tasks")
    return (
        {name: task for name, task in tasks.items() if isinstance(task, Mapping)} if isinstance(tasks, Mapping) else {}
    )


def _known(place: Sequence[int | str]) -> Sequence[str]:
    """The keys that a recipe may have at a place."""
    if not place:
        return [name for name in Recipe.model_fields if name != "base"]
    if tuple(place[:2]) == ("train", "groups"):
        return list(GroupRecipe.model_fields) if len(place) == 3 else []
    fields = TrainOptions.model_fields if place[0] == "train" else TaskRecipe.model_fields
    return list(fields) if len(place) == (1 if place[0] == "train" else 2) else []


def _report(problems: Sequence[str], filled: Mapping[str, Any], wrong: Mapping[str, str]) -> list[str]:
    """All problems, those with presets first; what a missing preset would have filled is said only once."""
    lines = list(wrong.values())
    for problem in problems:
        missing = re.fullmatch(r"tasks\.([^.]+)\.[^.]+(?:\.name)?: required", problem)
        if missing is None:
            lines.append(problem)
        elif missing[1] not in wrong:
            preset = "preset" in _tasks_of(filled).get(missing[1], {})
            lines.append(problem if preset else f"{problem} (or name a preset: tasks.{missing[1]}.preset)")
    return lines
