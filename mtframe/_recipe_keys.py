"""The keys of a recipe: components with their options, tasks, and how training runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from mtframe.errors import RecipeError
from mtframe.registry import in_texts, local_file, name_of

CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True)

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Choice(BaseModel):
    """A component and its options: `dense`, or `{name: dense, width: 128}`.

    Attributes:
        name: The component's name.
        options: Its options, not checked yet.
    """

    model_config = CONFIG

    name: str = Field(min_length=1)
    options: dict[str, Any] = {}

    def plain(self) -> str | dict[str, Any]:
        """What YAML writes for it."""
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
    context = info.context or {}
    if context.get("kept"):
        # A run keeps the files that its options name, too.
        given = in_texts(given, lambda text: local_file(text, context["base"]))
    return {**name, "options": given}


def _named(name: Any, info: ValidationInfo) -> Any:
    """A component's name, which from Python may be the class itself."""
    if callable(name):
        return name_of(name)
    # Files are relative to the recipe's folder, which need not be where the recipe is written next.
    return local_file(name, (info.context or {}).get("base")) if isinstance(name, str) else name


def check_task_name(name: str) -> None:
    """Raises RecipeError for what cannot be a task's name in a recipe."""
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
Parts = Annotated[list[Part], BeforeValidator(_several)]
TaskName = Annotated[str, AfterValidator(_task_name)]


class TaskRecipe(BaseModel):
    """One task. What a recipe leaves out comes from the preset.

    Attributes:
        preset: What fills what is left out, e.g. `face-recognition`.
        dataset: Where images and labels come from.
        images: Another task, whose images are used in training, in one pass through the backbone for both; then
            the data set only gives labels to these, and what makes batches of them comes from that task.
        target: The component for its kind of target; null for the one that its data set names.
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

    model_config = CONFIG

    preset: Annotated[str, BeforeValidator(_named)] | None = None
    dataset: Part
    images: str | None = None
    target: Part | None = None
    transform: Part
    head: Part
    loss: Part
    metrics: Annotated[Parts, Field(min_length=1)]
    size: Annotated[int, Field(ge=16, le=16384)]
    batch_size: Positive
    every: Positive = 1
    flip_test: bool = False
    test_scales: Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1)] = [1.0]


class GroupRecipe(BaseModel):
    """How a part of the model trains, where that is not as the rest does.

    For each option, the first group counts that names a parameter and has the option.

    Attributes:
        part: Whose parameters: a name, or a pattern, of parts or parameters, as `sharing`, `heads.faces` or `*.bias`;
            `backbone` is the backbone, wherever the sharing scheme keeps it.
        lr_scale: What the learning rate is multiplied by, at every step.
        layer_decay: By what the rate falls from layer to layer of a backbone towards the input: layer i of L, counted
            from 0, has lr_scale * layer_decay ** (L - i).
        weight_decay: Instead of `train.weight_decay`; biases and norms have none.
        frozen_steps: Steps at the beginning in which it stays as it is.
    """

    model_config = CONFIG

    part: Annotated[str, Field(min_length=1)]
    lr_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    weight_decay: NotNegative | None = None
    frozen_steps: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.plain().keys() - {"part"}:
            options = [name for name in type(self).model_fields if name != "part"]
            raise ValueError(f"says nothing of {self.part!r}; expected one of {', '.join(options)}")
        return self

    def plain(self) -> dict[str, Any]:
        """What YAML writes for it."""
        return self.model_dump(exclude_none=True)


class TrainOptions(BaseModel):
    """How training runs.

    Attributes:
        epochs: Length of training, in passes over the data of the task that needs the most steps for one; with the
            schedule `epochs`, over that of every task.
        steps: Length of training in optimiser steps; takes the place of `epochs`. 0 trains nothing: the run has the
            weights that it was given.
        schedule: Which task trains when; `joint`: every task in every step.
        balance_at: What gradients a balancer that weighs them weighs: those of the shared `parameters`, or those of
            the feature `maps`, for tasks on the same images.
        exact_gradients: Whether a balancer weighs the derivative of each task's loss also where BatchNorm ties tasks
            together, which takes a backward pass per task; else statistics respond to the task's own images.
        optimizer: Name of an optimiser of timm.optim.
        lr: Peak learning rate.
        weight_decay: Weight decay; biases and norms have none.
        groups: Parts with a learning rate or weight decay of their own, or that begin to train later.
        momentum: Momentum, for the optimisers that have one.
        lr_schedule: Name of a schedule of timm.scheduler.
        warmup: Fraction of all steps in which the learning rate rises to its peak.
        min_lr: Learning rate at the end.
        clip_grad: Largest norm of the gradient; null for no clipping.
        accumulate: Batches whose gradients make one step.
        ema: Decay of the moving average of weights that is evaluated and kept; null for none.
        precision: `bf16` (autocast), `fp32`, or `auto`: the faster one, which the run then has in its recipe.
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
        gradients_every: Steps from one measurement of each task's gradients to the next; null measures none.
        max_unreadable: Unreadable images that are skipped before training stops.
        allow: Names of findings about the data that do not stop training, though they look as if they cannot be meant.
    """

    model_config = CONFIG

    epochs: Positive = 20
    steps: Annotated[int, Field(ge=0)] | None = None
    schedule: Part = Choice(name="joint")
    balance_at: Literal["parameters", "maps"] = "parameters"
    exact_gradients: bool = False
    optimizer: str = "adamw"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    weight_decay: NotNegative = 0.05
    groups: list[GroupRecipe] = []
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    lr_schedule: str = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    min_lr: NotNegative = 1e-5
    clip_grad: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 10.0
    accumulate: Positive = 1
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.999
    precision: Literal["auto", "bf16", "fp32"] = "auto"
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
    allow: list[str] = []
