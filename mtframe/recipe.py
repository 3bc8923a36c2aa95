"""The recipe: a whole experiment in one flat YAML file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from mtframe import options
from mtframe._fit import check_member, mismatches, no_labels, no_target, with_hint
from mtframe._overrides import add_hooks, parse_task
from mtframe._overrides import apply_overrides as apply_overrides
from mtframe._presets import LENT, fill, lend
from mtframe._yaml import dump_yaml, parse_yaml
from mtframe.errors import RecipeError
from mtframe.registry import Resolved, did_you_mean, local_file, name_of, resolve

_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True)

# What of a task is a component, and of which kind.
_SLOTS = {"dataset": "dataset", "transform": "transform", "head": "head", "loss": "loss"}

# What stands for parts that a recipe need not name.
_DEFAULTS = {"sharing": "network", "balancer": "sum"}
_SCHEDULE = "joint"
_OBSERVERS = ("csv-logger",)

# Kinds that only training needs: a run is evaluated and predicts without.
TRAINING_ONLY = ("balancer", "schedule", "hooks")

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Choice(BaseModel):
    """A component and its options: `dense`, or `{name: dense, width: 128}`.

    Attributes:
        name: The component's name.
        options: Its options, not checked yet.
    """

    model_config = _CONFIG

    name: str = Field(min_length=1)
    options: dict[str, Any] = {}

    def plain(self) -> str | dict[str, Any]:
        """As YAML writes it."""
        return {"name": self.name, **self.options} if self.options else self.name


def _choice(value: Any, info: ValidationInfo) -> Any:
    """What a recipe writes, as the fields of a Choice."""
    if isinstance(value, Choice):
        return value
    if isinstance(value, str) or callable(value):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a name, or a mapping with 'name' and options, got {value!r}")
    given = {key: option for key, option in value.items() if key != "name"}
    strange = [key for key in given if not isinstance(key, str)]
    if strange:
        raise ValueError(f"expected names of options, got {strange[0]!r}")
    name = {"name": _named(value["name"], info)} if "name" in value else {}
    return {**name, "options": given}


def _named(name: Any, info: ValidationInfo) -> Any:
    """A component's name, which from Python may be the class itself."""
    if callable(name):
        return name_of(name)
    # Files are relative to the recipe's folder, which need not be where the recipe is written next.
    return local_file(name, (info.context or {}).get("base")) if isinstance(name, str) else name


def check_task_name(name: str) -> None:
    """Raises RecipeError for what a recipe takes as no task's name."""
    try:
        _task_name(name)
    except ValueError as error:
        raise RecipeError(f"tasks.{name}: {error}") from None


def _task_name(name: str) -> str:
    # It becomes part of file names (`best_TASK`) and of dotted keys.
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError("expected a task's name of letters, digits, '_' and '-', beginning with a letter")
    return name


def _several(value: Any) -> Any:
    """One part where a list of them is expected, as that list."""
    one = isinstance(value, str) or callable(value) or (isinstance(value, Mapping) and "name" in value)
    return [value] if one else value


Part = Annotated[Choice, BeforeValidator(_choice)]


class TaskRecipe(BaseModel):
    """One task. What a recipe leaves out comes from the preset.

    Attributes:
        preset: What fills what is left out, e.g. `face-recognition`.
        dataset: Where images and labels come from.
        images: Another task, whose images are used in training, in one pass through the backbone for both; then
            the data set only gives labels to these, and what makes batches of them comes from that task.
        target: The component that its kind of target is; found by the name that its data set gives if null.
        transform: How samples become batches.
        head: What predicts.
        loss: What it is trained with.
        metrics: What it is scored with; the first one's primary value decides which checkpoint is best. One
            needs no list.
        size: Side of the network's square input in pixels, at least 16.
        batch_size: Images of this task in each step that trains it.
        every: It takes part in every k-th step, with a schedule that lets tasks skip some, such as `joint`.
        flip_test: Whether evaluation and prediction also look at the mirror image, and merge what they see.
        test_scales: At which sizes they look at it, as parts of `size`.
    """

    model_config = _CONFIG

    preset: Annotated[str, BeforeValidator(_named)] | None = None
    dataset: Part
    images: str | None = None
    target: Part | None = None
    transform: Part
    head: Part
    loss: Part
    metrics: Annotated[list[Part], BeforeValidator(_several), Field(min_length=1)]
    size: Annotated[int, Field(ge=16, le=16384)]
    batch_size: Positive
    every: Positive = 1
    flip_test: bool = False
    test_scales: Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1)] = [1.0]


class TrainOptions(BaseModel):
    """How training runs.

    Attributes:
        epochs: Length of training, in passes over the data of the task that needs the most steps for one; with the
            schedule `epochs`, over that of every task.
        steps: Length of training in optimiser steps; takes the place of `epochs`.
        schedule: Which task trains when; `joint`: every task in every step.
        balance_at: What gradients a balancer that weighs them weighs: those of the shared `parameters`, or those of
            the feature `maps`, for tasks on the same images.
        exact_gradients: Whether a balancer weighs the derivative of each task's loss also where BatchNorm ties tasks
            together, which takes a backward pass a task; else statistics respond to the task's own images.
        optimizer: Name of an optimiser of timm.optim.
        lr: Peak learning rate.
        weight_decay: Weight decay; biases and norms have none.
        momentum: Momentum, for the optimisers that have one.
        lr_schedule: Name of a schedule of timm.scheduler.
        warmup: Fraction of all steps in which the learning rate rises to its peak.
        min_lr: Learning rate at the end.
        clip_grad: Largest norm of the gradient; null for no clipping.
        accumulate: Batches whose gradients make one step.
        ema: Decay of the moving average of weights that is evaluated and kept; null for none.
        precision: `bf16` (autocast) or `fp32`.
        channels_last: Whether images and convolutions are laid out NHWC in memory.
        seed: Of everything random.
        workers: Processes that read images; 0 reads in the training process.
        device: `auto` (a GPU where there is one), or what torch.device takes.
        start: Weights that training starts from, as far as they fit by name and shape: a run's folder (its best ones),
            or a file of weights in one.
        tasks: The tasks that are trained, all if null; the others stay as they are in `start`, and no data of theirs is
            needed.
        freeze: Names of parts and parameters of the model that are not trained, e.g. `sharing` or `heads.faces`.
        distil: Weight of what keeps tasks that are not trained near what `start` answers; null for nothing.
        evaluate_every: Epochs between evaluations during training; null evaluates only at the end.
        save_every_steps: Steps between checkpoints besides those after evaluations; null for none.
        log_every: Steps between rows of `metrics.csv`.
        gradients_every: Steps from one whose gradients are measured, task by task, to the next; null measures none.
        max_unreadable: Unreadable images that are skipped before training stops.
    """

    model_config = _CONFIG

    epochs: Positive = 20
    steps: Positive | None = None
    schedule: Part = Choice(name=_SCHEDULE)
    balance_at: Literal["parameters", "maps"] = "parameters"
    exact_gradients: bool = False
    optimizer: str = "adamw"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    weight_decay: NotNegative = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    lr_schedule: str = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    min_lr: NotNegative = 1e-5
    clip_grad: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 10.0
    accumulate: Positive = 1
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    channels_last: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    workers: Annotated[int, Field(ge=0)] = 2
    device: str = "auto"
    start: str | None = None
    tasks: Annotated[list[str], Field(min_length=1)] | None = None
    freeze: list[str] = []
    distil: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    evaluate_every: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1.0
    save_every_steps: Positive | None = None
    log_every: Positive = 10
    gradients_every: Positive | None = None
    max_unreadable: Annotated[int, Field(ge=0)] = 100


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

    model_config = _CONFIG

    backbone: Part
    sharing: Part = Choice(name=_DEFAULTS["sharing"])
    balancer: Part = Choice(name=_DEFAULTS["balancer"])
    tasks: Annotated[dict[Annotated[str, AfterValidator(_task_name)], TaskRecipe], Field(min_length=1)]
    hooks: Annotated[list[Part], BeforeValidator(_several)] = [Choice(name=name) for name in _OBSERVERS]
    train: TrainOptions = TrainOptions()
    base: Path | None = Field(default=None, exclude=True, repr=False)

    @property
    def trained(self) -> tuple[str, ...]:
        """The tasks that are trained, in the order of all."""
        chosen = self.train.tasks
        return tuple(name for name in self.tasks if chosen is None or name in chosen)

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

    def check(self, *, training: bool = True) -> CheckedRecipe:
        """Imports every component, checks its options, and whether a task's parts speak one kind of target.

        Args:
            training: Whether it is to be trained; otherwise what only training needs is left alone: balancer, schedule
                and hooks.

        Raises:
            RecipeError: With all problems, one a line.
        """
        found: dict[str, Resolved] = {}
        parts: dict[str, CheckedPart] = {}
        wrong: list[str] = []
        for where, kind, choice in self.choices():
            if kind in TRAINING_ONLY and not training:
                continue
            try:
                resolved = resolve(kind, choice.name, self.base)
                found[where] = resolved
                check_member(resolved)
                parts[where] = CheckedPart(resolved, options.check(resolved.component, kind, choice.options, where))
            except RecipeError as error:
                text = with_hint(str(error), where, found.get(where))
                wrong.append(text if text.startswith(where) else f"{where}: {text}")
        wrong += [problem for name in self.tasks for problem in mismatches(name, found)]
        wrong += [problem for name, task in self.tasks.items() if task.images for problem in no_labels(name, found)]
        for name, task in self.tasks.items():
            wrong += no_target(name, found, self.base) if task.target is None else []
        wrong += [*self._untrainable(), *self._skipping(parts.get("train.schedule"))] if training else []
        if wrong:
            raise RecipeError("\n".join(wrong))
        return CheckedRecipe(self, parts)

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
        train = self.train.model_dump() | {"schedule": self.train.schedule.plain()}
        return dump_yaml({**whole, "tasks": tasks, "hooks": hooks}) + dump_yaml({"train": train}, flow=False)

    def renamed(self, rename: Callable[[str], str]) -> Self:
        """The recipe with every name of a component or preset changed."""

        def part(choice: Choice) -> Choice:
            return Choice(name=rename(choice.name), options=choice.options)

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
        filled, wrong = fill(plain, base, fields, kinds) if presets else (deepcopy(dict(plain)), {})
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
            recipe = cls.model_validate(filled, context={"base": base})
        except ValidationError as error:
            problems = options.problems(error, filled, "", _known)
            raise RecipeError("\n".join(_report(problems, filled, wrong))) from None
        if problems := [*wrong.values(), *_never_training(recipe)]:
            raise RecipeError("\n".join(problems))
        return recipe.model_copy(update={"base": base})


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
    """
    plain = read_recipe(path)
    with in_file(path):
        plain = apply_overrides(add_hooks(plain, hooks, _OBSERVERS), overrides)
        return Recipe.from_plain(plain, Path(path).resolve().parent)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The plain YAML values of a recipe's file. Raises RecipeError if it is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
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
) -> Recipe:
    """Makes a recipe from names, without a file.

    Args:
        backbone: Name of the backbone, e.g. `timm/resnet18`.
        tasks: `NAME=PRESET:ROOT` each, e.g. `faces=face-recognition:data/lfw`.
        overrides: `key=value` texts, see `apply_overrides`.
        hooks: Further observers, see `load_recipe`.
        data: Folder whose subfolder of the data set's name is the root where a task gives none.

    Raises:
        RecipeError: What is written is not a recipe.
    """
    named: dict[str, Any] = {}
    for name, task in map(parse_task, tasks):
        if name in named:
            raise RecipeError(f"task {name!r} is given twice; tasks need different names")
        named[name] = task
    plain = apply_overrides(add_hooks({"backbone": backbone, "tasks": named}, hooks, _OBSERVERS), overrides)
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
    """That a step would train nothing, if so."""
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
            preset = "preset" in filled["tasks"][missing[1]]
            lines.append(problem if preset else f"{problem} (or name a preset: tasks.{missing[1]}.preset)")
    return lines
