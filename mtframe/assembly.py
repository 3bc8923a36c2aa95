"""From a recipe to its parts: model, data sets, transforms and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mtframe._fit import mismatch, targets_of
from mtframe._labels import read_labels, run_of
from mtframe.data import DataInfo, Source, WithTargetsOf
from mtframe.errors import DataError, MtframeError, PluginError, RecipeError
from mtframe.hooks import Hooks
from mtframe.kinds import KINDS, Backbone, Balancer, Dataset, GradientBalancer, Metric, Transform
from mtframe.model import MultiTaskModel
from mtframe.options import build
from mtframe.recipe import Choice, Recipe
from mtframe.registry import resolve


class Assembly:
    """Builds the parts that a recipe names, each when it is asked for.

    A trained run needs no training data to be assembled again: what its data sets' labels mean (`infos`) is kept
    beside its weights.

    Args:
        recipe: The resolved recipe.
        infos: DataInfo by task, if known; otherwise the training data sets tell.
        trained: The recipe that the weights come from, if it is another: a run is evaluated with changes, but what it
            has learned from does not change.

    Raises:
        MtframeError: A part refuses its options or files, or there is no DataInfo of a task.
    """

    def __init__(
        self, recipe: Recipe, infos: Mapping[str, DataInfo] | None = None, trained: Recipe | None = None
    ) -> None:
        self.recipe = recipe
        self._trained = trained or recipe
        self._train_sets: dict[str, Dataset] = {}
        self.infos = dict(infos) if infos is not None else self._infos()
        if unknown := [task for task in recipe.tasks if task not in self.infos]:
            raise RecipeError(f"tasks.{unknown[0]}: the run was trained without it, on {', '.join(self.infos)}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.recipe.tasks)

    def model(self, *, restoring: bool = False) -> MultiTaskModel:
        """A freshly initialised model.

        Args:
            restoring: Trained weights will be loaded into it, so pretrained ones are not fetched.
        """
        largest = max(task.size for task in self.recipe.tasks.values())
        backbone: Backbone = self._build(
            "backbone", self.recipe.backbone, "backbone", {"size": largest, "restoring": restoring}
        )
        sharing = self._build(
            "sharing", self.recipe.sharing, "sharing", {"backbone": backbone, "groups": self.groups()}
        )
        heads: dict[str, nn.Module] = {}
        losses: dict[str, nn.Module] = {}
        for name, task in self.recipe.tasks.items():
            heads[name] = self._build_for(name, "head", task.head, "head", {"features": sharing.features})
            if (task.flip_test or task.test_scales != [1.0]) and not hasattr(heads[name], "merge_views"):
                raise RecipeError(
                    f"tasks.{name}: head {task.head.name!r} cannot merge several views of an image (it has no "
                    "merge_views); leave flip_test and test_scales out"
                )
            losses[name] = self._build_for(name, "loss", task.loss, "loss", {"head": heads[name]})
        return MultiTaskModel(
            sharing, heads, losses,
            mean=backbone.mean, std=backbone.std, colour_order=getattr(backbone, "colour_order", "RGB"),
        )  # fmt: skip

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Tasks whose images always have one size, together; they share one pass through the backbone."""
        by_size: dict[Any, list[str]] = {}
        for name, task in self.recipe.tasks.items():
            fixed = self.transform(name, train=True).fixed_size
            by_size.setdefault(task.size if fixed else task.images or name, []).append(name)
        return tuple(tuple(group) for group in by_size.values())

    def balancer(self) -> Balancer | GradientBalancer:
        """The balancer.

        Raises:
            RecipeError: It is to weigh the gradients of feature maps, or exact ones, and weighs no gradients.
        """
        choice = self.recipe.balancer
        # What keeps a task that is not trained is a loss like those of the others.
        tasks = self.recipe.trained if self.recipe.train.distil is None else self.tasks
        balancer: Balancer | GradientBalancer = self._build("balancer", choice, "balancer", {"tasks": tasks})
        if self.recipe.train.balance_at == "maps" and not hasattr(balancer, "weigh"):
            raise RecipeError(
                f"train.balance_at: maps is for balancers that weigh gradients, such as mgda, which {choice.name} does "
                "not; leave it out, or choose another balancer"
            )
        if self.recipe.train.exact_gradients and not (hasattr(balancer, "weigh") or hasattr(balancer, "combine")):
            raise RecipeError(
                f"train.exact_gradients: true is for balancers that weigh gradients, such as mgda, which {choice.name} "
                "does not; leave it out, or choose another balancer"
            )
        return balancer

    def sources(self) -> dict[str, Source]:
        """Training data of the trained tasks that have images of their own, each with the tasks that use them too.

        Among them is also a task that is not trained but lends its images to one that is.

        Raises:
            DataError: Its labels are not those of `infos`: the data was changed since the run began.
            RecipeError: Images that another task uses would be mixed with each other.
        """
        sources = {}
        tasks = {name: self.recipe.tasks[name] for name in self.recipe.trained}
        lenders = {task.images for task in tasks.values() if task.images is not None}
        for name, task in self.recipe.tasks.items():
            if name not in tasks and name not in lenders:
                continue
            dataset = self._train_set(name)
            if dataset.info != self.infos[name]:
                raise DataError(
                    f"tasks.{name}.dataset: the labels of its training data are no longer those that this run began "
                    f"with ({_difference(self.infos[name], dataset.info)}). Restore the data, or begin a new run."
                )
            if task.images is not None:
                continue
            transform = self.transform(name, train=True)
            dataset.decode_size = transform.decode_size
            sources[name] = Source(dataset, transform, task.batch_size, every=task.every)
        for name, task in tasks.items():
            if task.images is not None:
                if getattr(sources[task.images].transform, "mixes", False):
                    raise RecipeError(
                        f"tasks.{name}.images: the transform of {task.images!r} makes one image of several, for which "
                        f"{name!r} has no labels; switch off what mixes them (mosaic, mixup, cutmix)"
                    )
                sources[task.images].labellers[name] = self._train_set(name)
        return sources

    def transform(self, task: str, *, train: bool) -> Transform:
        """One task's transform."""
        part = self.recipe.tasks[task]
        wired = {"size": part.size, "train": train}
        return self._build_for(part.images or task, "transform", part.transform, "transform", wired)

    def dataset(self, task: str, split: str) -> Dataset:
        """One split of one task's data set, read for evaluation.

        Args:
            task: The task.
            split: One of the data set's `splits`.

        Raises:
            RecipeError: The data set has no such split.
        """
        choice = self.recipe.tasks[task].dataset
        splits = resolve("dataset", choice.name, self.recipe.base).component.splits
        if split not in splits:
            raise RecipeError(f"tasks.{task}.dataset: {choice.name} has no split {split!r}, only {', '.join(splits)}")
        dataset: Dataset = self._build("dataset", choice, f"tasks.{task}.dataset", {"split": split})
        dataset.decode_size = self.transform(task, train=False).decode_size
        lender = self.recipe.tasks[task].images
        return dataset if lender is None else self._completed(dataset, lender, split)

    def _completed(self, dataset: Dataset, lender: str, split: str) -> Any:
        """A borrowing task's data, with what the lender's data knows of its images (landmarks, for its transform)."""
        choice = self.recipe.tasks[lender].dataset
        component = resolve("dataset", choice.name, self.recipe.base).component
        if not hasattr(component, "target_of") or split not in component.splits:
            return dataset
        try:
            known: Any = self._build("dataset", choice, f"tasks.{lender}.dataset", {"split": split})
        except MtframeError:
            # It has no such split; its transform says so if it cannot do without.
            return dataset
        return WithTargetsOf(dataset, known)

    def metrics(self, task: str, dataset: Dataset) -> list[Metric]:
        """One task's metrics for one evaluated split; the first one's primary value ranks checkpoints."""
        wired = {"dataset": dataset, "outside": self.outside(task)}
        return [
            self._build_for(task, "metric", choice, f"metrics.{position}", wired)
            for position, choice in enumerate(self.recipe.tasks[task].metrics)
        ]

    def outside(self, task: str) -> tuple[str, ...]:
        """What else than the training data of a task the model has learned from, in words."""
        recipe = self._trained
        backbone = resolve("backbone", recipe.backbone.name, recipe.base)
        transform = recipe.tasks[task].transform
        aligned = getattr(resolve("transform", transform.name, recipe.base).component, "outside", None)
        pretraining = getattr(backbone.component, "pretraining", None)
        told = [
            pretraining(backbone.member, **recipe.backbone.options) if pretraining else None,
            aligned(**transform.options) if aligned else None,
            recipe.train.start and f"what the weights of {recipe.train.start} have learned from",
        ]
        others = [f"task {name} ({part.dataset.name})" for name, part in recipe.tasks.items() if name != task]
        return (*filter(None, told), *others)

    def _infos(self) -> dict[str, DataInfo]:
        """What the training data tells, and of tasks that are not trained the run that they come from."""
        start, trained = self.recipe.train.start, self.recipe.trained
        run = run_of(start) if start is not None and len(trained) < len(self.tasks) else None
        infos = {} if run is None else read_labels(run)
        infos |= {task: self._train_set(task).info for task in trained}
        if unknown := [task for task in self.tasks if task not in infos]:
            raise RecipeError(f"train.tasks: {unknown[0]!r} is not trained, and {start} is of no run that knows it")
        return {task: infos[task] for task in self.tasks}

    def _train_set(self, task: str) -> Dataset:
        if task not in self._train_sets:
            choice = self.recipe.tasks[task].dataset
            self._train_sets[task] = self._build("dataset", choice, f"tasks.{task}.dataset", {"split": "train"})
        return self._train_sets[task]

    def _build_for(self, task: str, kind: str, choice: Choice, slot: str, wired: dict[str, Any]) -> Any:
        """A part of a task that works on its targets."""
        where, info, dataset = f"tasks.{task}.{slot}", self.infos[task], self.recipe.tasks[task].dataset
        speaks = targets_of(resolve(kind, choice.name, self.recipe.base).component)
        if speaks and info.target not in speaks:
            # A data set may have one of several kinds, by its options.
            raise RecipeError(mismatch(where, kind, choice.name, speaks, dataset.name, (info.target,)))
        return self._build(kind, choice, where, {"info": info, **wired})

    def _build(self, kind: str, choice: Choice, where: str, wired: dict[str, Any]) -> Any:
        resolved = resolve(kind, choice.name, self.recipe.base)
        wired = {"member": resolved.member, **wired}
        part = build(resolved.component, kind, choice.options, wired, where)
        if missing := KINDS[kind].missing(part):
            raise PluginError(
                f"{where}: {choice.name!r} is no {kind}: it has no {', '.join(missing)}. "
                f"What a {kind} gives is in mtframe.kinds"
            )
        return part


def assemble(recipe: Recipe) -> Assembly:
    """Checks a recipe and reads its training data; what it names can then be built.

    Raises:
        MtframeError: A part is missing, does not fit, or refuses its options or files.
    """
    recipe.check()
    return Assembly(recipe)


def observe(recipe: Recipe, *, strict: bool = False) -> Hooks:
    """The observers that a recipe names, which have been told of it.

    Args:
        recipe: The resolved recipe.
        strict: Re-raise what an observer raises.

    Raises:
        RecipeError: An observer refuses its options or the recipe.
    """
    observers = {}
    for number, choice in enumerate(recipe.hooks):
        where = f"hooks.{number}"
        found = resolve("hooks", choice.name, recipe.base)
        built = build(found.component, "hooks", choice.options, {}, where)
        observers[f"{where} ({choice.name})"] = built, found.label
    hooks = Hooks(strict=strict)
    # The one that was registered last is called first, and a recipe's first should be.
    for name, (observer, label) in reversed(observers.items()):
        hooks.register(observer, name, label)
    # A copy, here as elsewhere: who observes does not change what it sees.
    hooks.call.recipe_read(recipe=recipe.model_copy(deep=True))
    return hooks


def _difference(before: DataInfo, now: DataInfo) -> str:
    if before.target != now.target:
        return f"targets of kind {before.target!r} then, {now.target!r} now"
    if len(before.classes) != len(now.classes):
        return f"{len(before.classes)} classes then, {len(now.classes)} now"
    then, here = next(pair for pair in zip(before.classes, now.classes, strict=True) if pair[0] != pair[1])
    return f"a class {then!r} then, {here!r} now in its place"
