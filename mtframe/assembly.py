"""From a recipe to its parts: model, data sets, transforms and metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from torch import nn

from mtframe._fit import mismatch, splits_of, targets_of
from mtframe._labels import read_labels, run_of
from mtframe.data import DataInfo, MixedBatches, Source, Viewer, WithTargetsOf
from mtframe.device import WithinMemory
from mtframe.errors import DataError, MtframeError, PluginError, RecipeError
from mtframe.hooks import Hooks
from mtframe.kinds import (
    KINDS,
    Backbone,
    Dataset,
    EvaluatesAs,
    FeatureSpec,
    GradientBalancer,
    GradientCombiner,
    HasColourOrder,
    KnowsOutside,
    LabelsImages,
    Metric,
    MixesImages,
    Samples,
    Schedule,
    Target,
    TellsPretraining,
    Transform,
)
from mtframe.model import MultiTaskModel
from mtframe.options import build, check, construct, wired_names
from mtframe.recipe import CheckedPart, CheckedRecipe, Choice, Recipe, read_recipe
from mtframe.registry import only_files

if TYPE_CHECKING:
    from mtframe.gradients import AnyBalancer


# Where a model has what is built of each kind, by task.
_PARTS = {"head": "heads", "loss": "losses"}


class Assembly:
    """Builds the parts that a recipe names, each when it is asked for, and keeps those that can serve again.

    A trained run needs no training data to be assembled again: what its data sets' labels mean (`infos`) is kept
    with its weights.

    Args:
        recipe: A checked recipe; of one that is not, parts are looked up and checked when they are built.
        infos: DataInfo by task, if known; otherwise that of the training data sets.
        trained: The recipe that the weights come from, if it is another: a run is evaluated with changes, but what it
            has learned from does not change.

    Raises:
        MtframeError: A part refuses its options or files, or there is no DataInfo of a task.
    """

    def __init__(
        self,
        recipe: Recipe | CheckedRecipe,
        infos: Mapping[str, DataInfo] | None = None,
        trained: Recipe | None = None,
    ) -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else recipe.recipe
        self._parts = {} if isinstance(recipe, Recipe) else dict(recipe.parts)
        self._trained = trained or self.recipe
        self._files = self.recipe.files() | self._trained.files()
        self._train_sets: dict[str, Dataset] = {}
        self._datasets: dict[tuple[str, str], Dataset] = {}
        self._transforms: dict[tuple[str, bool], Transform] = {}
        self._targets: dict[str, Target] = {}
        # Those that no evaluation has at the moment: who takes one out of the list, has it alone, without a lock.
        self._metrics: dict[tuple[str, str], list[list[Metric]]] = {}
        self.infos = dict(infos) if infos is not None else self._infos()
        if unknown := [task for task in self.recipe.tasks if task not in self.infos]:
            raise RecipeError(f"tasks.{unknown[0]}: the run was trained without it, on {', '.join(self.infos)}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.recipe.tasks)

    def is_validation(self, task: str, split: str) -> bool:
        """Whether a split is the one that the weights' training was evaluated on, and that chose what is kept."""
        trained = self._trained.tasks.get(task)
        return split == "val" and trained is not None and trained.dataset == self.recipe.tasks[task].dataset

    def model(
        self, *, restoring: bool = False, fresh: Collection[str] = (), sharing: Choice | None = None
    ) -> MultiTaskModel:
        """A freshly initialised model.

        Args:
            restoring: Trained weights will be loaded into it, so pretrained ones are not fetched.
            fresh: Parts that these weights lack: `sharing`, which has the backbone, `heads.TASK` and `losses.TASK`.
            sharing: The scheme, if it is not to be the recipe's.

        Raises:
            MtframeError: A part cannot be built, or its weights do not fit into memory.
        """
        with WithinMemory():
            largest = max(task.size for task in self.recipe.tasks.values())
            backbone: Backbone = self._build(
                "backbone", self.recipe.backbone, "backbone",
                {"size": largest, "restoring": restoring and "sharing" not in fresh},
            )  # fmt: skip
            scheme, where = (
                (self.recipe.sharing, "sharing") if sharing is None else (sharing, f"sharing={sharing.name}")
            )
            shared = self._build("sharing", scheme, where, {"backbone": backbone, "groups": self.groups()})
            heads: dict[str, nn.Module] = {}
            losses: dict[str, nn.Module] = {}
            for name in self.recipe.tasks:
                kept = {kind for kind in ("head", "loss") if restoring and f"{_PARTS[kind]}.{name}" not in fresh}
                heads[name], losses[name] = self.head_and_loss(name, shared.features, restoring=kept)
            order = backbone.colour_order if isinstance(backbone, HasColourOrder) else "RGB"
            return MultiTaskModel(shared, heads, losses, mean=backbone.mean, std=backbone.std, colour_order=order)

    def restoring_parts(self) -> list[str]:
        """Parts that may come with weights of their own, which they need not fetch where trained ones are loaded.

        The sharing scheme, which has the backbone, and heads and losses that are told so (`restoring`).
        """
        found = ["sharing"]
        for task, part in self.recipe.tasks.items():
            for kind, choice in (("head", part.head), ("loss", part.loss)):
                component = self._part(kind, choice, f"tasks.{task}.{kind}").resolved.component
                if "restoring" in wired_names(component, kind):
                    found.append(f"{_PARTS[kind]}.{task}")
        return found

    def head_and_loss(
        self,
        task: str,
        features: Sequence[FeatureSpec],
        info: DataInfo | None = None,
        *,
        restoring: Collection[str] = (),
    ) -> tuple[nn.Module, nn.Module]:
        """A task's freshly initialised head and loss.

        Args:
            task: The task.
            features: The maps that the sharing scheme gives.
            info: For other classes than the task's.
            restoring: Into which of the two, `head` and `loss`, trained weights are loaded right after.

        Raises:
            MtframeError: One of them cannot be built.
        """
        part = self.recipe.tasks[task]
        wired = {"features": features, "restoring": "head" in restoring}
        head = self._build_for(task, "head", part.head, "head", wired, info)
        wired = {"head": head, "restoring": "loss" in restoring}
        return head, self._build_for(task, "loss", part.loss, "loss", wired, info)

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Tasks whose images always have one size, together; they share one pass through the backbone in training."""
        tasks, by_size = self.recipe.tasks, dict[object, list[str]]()
        lenders = Counter(task.size for task in tasks.values() if task.images is None)
        for name, task in tasks.items():
            # With a size that nobody else's images have, it is alone with its borrowers anyhow: no transform is built
            # for what is not asked.
            together = lenders[task.size] > 1 and self.transform(name, train=True).fixed_size
            by_size.setdefault(task.size if together else task.images or name, []).append(name)
        return tuple(tuple(group) for group in by_size.values())

    def input_groups(self, tasks: Sequence[str] | None = None) -> tuple[tuple[str, ...], ...]:
        """Tasks that look at the same input of the network in prediction and evaluation, together.

        Those are tasks on the images of one of them, and others whose transforms, without augmentation, are equal.

        Args:
            tasks: Of these only; of all if None.
        """
        passes = {name: number for number, group in enumerate(self.groups()) for name in group}
        by_input: dict[object, list[str]] = {}
        for name in tasks or self.tasks:
            by_input.setdefault((passes[name], self._input_of(name)), []).append(name)
        return tuple(tuple(group) for group in by_input.values())

    def _input_of(self, task: str) -> Hashable:
        """What the inputs of a task depend on in evaluation: equal for tasks whose inputs are."""
        part, transform = self.recipe.tasks[task], self.transform(task, train=False)
        if isinstance(transform, EvaluatesAs):
            return type(transform), part.size, transform.evaluates_as
        return json.dumps([part.transform.name, part.transform.options, part.size], sort_keys=True, default=str)

    def balancer(self) -> AnyBalancer:
        """The balancer.

        Raises:
            RecipeError: The recipe has it weigh the gradients of feature maps, or exact ones, and it weighs none.
        """
        choice = self.recipe.balancer
        # What keeps a task that is not trained is a loss like those of the others.
        tasks = self.recipe.trained if self.recipe.train.distil is None else self.tasks
        balancer: AnyBalancer = self._build("balancer", choice, "balancer", {"tasks": tasks})
        if self.recipe.train.balance_at == "maps" and not isinstance(balancer, GradientBalancer):
            raise RecipeError(
                f"train.balance_at: maps is for balancers that weigh gradients, such as mgda, which {choice.name} does "
                "not; leave it out, or choose another balancer"
            )
        if self.recipe.train.exact_gradients and not isinstance(balancer, GradientBalancer | GradientCombiner):
            raise RecipeError(
                f"train.exact_gradients: true is for balancers that weigh gradients, such as mgda, which {choice.name} "
                "does not; leave it out, or choose another balancer"
            )
        return balancer

    def batches(self) -> MixedBatches:
        """The training batches of every step, of the tasks that the schedule trains in it.

        Raises:
            MtframeError: As of `sources`; or the schedule refuses its options.
        """
        return MixedBatches(self.sources(), self.recipe.train.seed, self._schedule)

    def _schedule(self, lengths: Mapping[str, int], every: Mapping[str, int]) -> Schedule:
        schedule: Schedule = self._build(
            "schedule", self.recipe.train.schedule, "train.schedule", {"lengths": lengths, "every": every}
        )
        return schedule

    def sources(self) -> dict[str, Source]:
        """Training data of the trained tasks that have images of their own, each with the tasks that look at them.

        Among them is also a task that is not trained but lends its images to one that is.

        Raises:
            DataError: Its labels are not those of `infos`: the data was changed since the run began.
            RecipeError: A task cannot use the images that it is lent, since inputs are made of several of them.
        """
        tasks = {name: self.recipe.tasks[name] for name in self.recipe.trained}
        lenders = {task.images for task in tasks.values() if task.images is not None}
        sources: dict[str, Source] = {}
        for name, task in self.recipe.tasks.items():
            if name not in tasks and name not in lenders:
                continue
            dataset = self._train_set(name)
            if dataset.info != self.infos[name]:
                raise DataError(
                    f"tasks.{name}.dataset: the labels of its training data are no longer those that this run began "
                    f"with ({_difference(self.infos[name], dataset.info)}). Restore the data, or begin a new run."
                )
            if task.images is None:
                transform = self.transform(name, train=True)
                dataset.decode_size = transform.decode_size
                sources[name] = Source(dataset, transform, task.batch_size, every=task.every)
                if name in tasks:
                    sources[name].viewers[name] = self._viewer(name, name)
        for name, task in tasks.items():
            if task.images is not None:
                sources[task.images].viewers[name] = self._viewer(name, task.images)
        return sources

    def _viewer(self, task: str, lender: str) -> Viewer:
        """How a task's labels go with the images of another one, or with its own."""
        target, transform = self.target(task), self.transform(lender, train=True)
        if isinstance(transform, MixesImages) and transform.mixes and not target.mixes:
            where = f"tasks.{task}.images" if task != lender else f"tasks.{task}.transform"
            raise RecipeError(
                f"{where}: the transform of {lender!r} makes one image of several, and a target of kind "
                f"{self.infos[task].target!r} cannot be one of several; switch off what mixes them (mosaic, mixup, "
                "cutmix)"
            )
        if task == lender:
            return Viewer(target)
        labels = self._train_set(task)
        if not isinstance(labels, LabelsImages):
            raise RecipeError(f"tasks.{task}.dataset: {self.recipe.tasks[task].dataset.name} cannot label other images")
        return Viewer(target, labels)

    def target(self, task: str) -> Target:
        """What one task's labels are."""
        if task not in self._targets:
            info = self.infos[task]
            choice = self.recipe.tasks[task].target or Choice(name=info.target)
            self._targets.setdefault(task, self._build("target", choice, f"tasks.{task}.target", {"info": info}))
        return self._targets[task]

    def transform(self, task: str, *, train: bool) -> Transform:
        """One task's transform, which is that of the task whose images it uses."""
        task = self.recipe.tasks[task].images or task
        if (task, train) not in self._transforms:
            part = self.recipe.tasks[task]
            wired = {"size": part.size, "train": train}
            made = self._build("transform", part.transform, f"tasks.{task}.transform", wired)
            self._transforms.setdefault((task, train), made)
        return self._transforms[task, train]

    def training_data(self, task: str) -> Dataset:
        """One task's training data."""
        return self._train_set(task)

    def dataset(self, task: str, split: str) -> Dataset:
        """One split of one task's data set, read for evaluation.

        Args:
            task: The task.
            split: One of the data set's `splits`.

        Raises:
            RecipeError: The data set has no such split.
        """
        if (task, split) not in self._datasets:
            choice, where = self.recipe.tasks[task].dataset, f"tasks.{task}.dataset"
            splits = splits_of(self._part("dataset", choice, where).resolved.component)
            if split not in splits:
                raise RecipeError(f"{where}: {choice.name} has no split {split!r}, only {', '.join(splits)}")
            dataset: Dataset = self._build("dataset", choice, where, {"split": split})
            dataset.decode_size = self.transform(task, train=False).decode_size
            # The first one, if several threads have made it.
            self._datasets.setdefault((task, split), dataset)
        return self._datasets[task, split]

    def readable(self, task: str, split: str) -> Samples:
        """One split of one task's data set, with all that its transform may need to know of the images.

        A borrowing task's images may have something that only the lender's data knows: landmarks, for its transform.
        """
        dataset, lender = self.dataset(task, split), self.recipe.tasks[task].images
        if lender is None or not isinstance(dataset, LabelsImages):
            return dataset
        try:
            known = self.dataset(lender, split)
        except MtframeError:
            # It has no such split; its transform says so if it cannot do without.
            return dataset
        return WithTargetsOf(dataset, known) if isinstance(known, LabelsImages) else dataset

    @contextmanager
    def scoring(self, task: str, split: str) -> Iterator[list[Metric]]:
        """One task's metrics for one evaluation of a split; they have seen nothing, and nobody else has them meanwhile.

        They are kept for the next evaluation. One that begins before the end of another gets some of its own. The first
        one's primary value ranks.
        """
        kept = self._metrics.setdefault((task, split), [])
        try:
            metrics = kept.pop()
        except IndexError:
            metrics = self._new_metrics(task, split)
        try:
            for metric in metrics:
                metric.reset()
            yield metrics
        finally:
            kept.append(metrics)

    def metrics(self, task: str, split: str) -> list[Metric]:
        """The metrics that the next evaluation of a split will have, ready; see `scoring` for who evaluates."""
        with self.scoring(task, split) as metrics:
            return metrics

    def _new_metrics(self, task: str, split: str) -> list[Metric]:
        wired = {"dataset": self.dataset(task, split), "outside": self.outside(task), "learned": self.learned(task)}
        return [
            self._build_for(task, "metric", choice, f"metrics.{position}", wired)
            for position, choice in enumerate(self.recipe.tasks[task].metrics)
        ]

    def outside(self, task: str) -> tuple[str, ...]:
        """What the model has learned from besides a task's training data, in words."""
        recipe = self._trained
        backbone = self._part("backbone", recipe.backbone, "backbone").resolved
        weights, lender = backbone.component, recipe.tasks[task].images or task
        chosen = recipe.tasks[lender].transform
        transform = self._part("transform", chosen, f"tasks.{lender}.transform").resolved.component
        with only_files(self._files):
            known = [
                weights.pretraining(backbone.member, **recipe.backbone.options)
                if isinstance(weights, TellsPretraining)
                else None,
                transform.outside(**chosen.options) if isinstance(transform, KnowsOutside) else None,
                recipe.train.start and f"what the weights of {recipe.train.start} have learned from",
            ]
        others = [f"task {name} ({part.dataset.name})" for name, part in recipe.tasks.items() if name != task]
        return (*filter(None, known), *others)

    def learned(self, task: str) -> dict[str, tuple[str, ...]]:
        """Names of classes of a task's kind of target that the model has learned elsewhere, by where, in words.

        In other tasks of the recipe; and by the runs whose weights it began with, one after the other. None are named
        where nobody knows which: a run is gone, or a file of weights is in none.
        """
        kind, found = self.infos[task].target, dict[str, tuple[str, ...]]()
        for name, part in self.recipe.tasks.items():
            if name != task and self.infos[name].target == kind and name in self._trained.trained:
                found[f"task {name} ({part.dataset.name})"] = self.infos[name].classes
        start, seen = self._trained.train.start, set[str]()
        while start is not None and start not in seen:
            seen.add(start)
            folder = None
            with suppress(MtframeError):
                folder = run_of(start)
            if folder is None:
                found[start] = ()
                break
            try:
                infos = read_labels(folder)
                recipe = Recipe.from_plain(read_recipe(folder / "recipe.yaml"), folder.resolve(), presets=False)
            except MtframeError:
                found[start] = ()
                break
            found |= {f"{start} (task {name})": info.classes for name, info in infos.items() if info.target == kind}
            start = recipe.train.start
        return found

    def _infos(self) -> dict[str, DataInfo]:
        """DataInfo by task: of the training data, or of the run that a task which is not trained comes from."""
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

    def _build_for(
        self, task: str, kind: str, choice: Choice, slot: str, wired: dict[str, Any], info: DataInfo | None = None
    ) -> Any:
        """A part of a task that works on its targets, or on those of another `info`."""
        where, info, dataset = f"tasks.{task}.{slot}", info or self.infos[task], self.recipe.tasks[task].dataset
        speaks = targets_of(self._part(kind, choice, where).resolved.component)
        if speaks and info.target not in speaks:
            # A data set may have one of several kinds, by its options.
            raise RecipeError(mismatch(where, kind, choice.name, speaks, dataset.name, (info.target,)))
        return self._build(kind, choice, where, {"info": info, **wired})

    def _part(self, kind: str, choice: Choice, where: str) -> CheckedPart:
        """A part that is found and checked, once."""
        known = self._parts.get(where)
        if known is None or known.resolved.name != choice.name:
            resolved = self.recipe.resolve(kind, choice.name)
            known = CheckedPart(resolved, check(resolved.component, kind, choice.options, where))
            self._parts[where] = known
        return known

    def _build(self, kind: str, choice: Choice, where: str, wired: dict[str, Any]) -> Any:
        found = self._part(kind, choice, where)
        wired = {"member": found.resolved.member, **wired}
        with only_files(self._files):
            part = construct(found.resolved.component, kind, found.options, wired, where)
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
    return Assembly(recipe.check())


def observe(recipe: Recipe, *, strict: bool = False) -> Hooks:
    """The observers that a recipe names, after their hook `recipe_read` was called.

    Args:
        recipe: The resolved recipe.
        strict: Re-raise what an observer raises.

    Raises:
        RecipeError: An observer refuses its options or the recipe.
    """
    observers = {}
    for number, choice in enumerate(recipe.hooks):
        where = f"hooks.{number}"
        found = recipe.resolve("hooks", choice.name)
        with only_files(recipe.files()):
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
