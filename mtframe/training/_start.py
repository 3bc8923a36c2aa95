"""Starting from the weights of another run: what fits by name and shape."""

# Shapes: G groups of tasks that pass together, C channels.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mtframe._labels import read_labels, run_of
from mtframe.assembly import Assembly
from mtframe.errors import CheckpointError, MtframeError, RecipeError
from mtframe.kinds import TakesOver
from mtframe.metrics import Thresholds
from mtframe.model import STATISTICS, MultiTaskModel
from mtframe.recipe import Recipe, read_recipe
from mtframe.run import RunFolder, check_fit, read_weights, take_weights

from ._class_rows import by_name, class_axes
from ._loaded import NORMALISATION, Loaded
from ._own import is_within, own_parts


class Start:
    """Weights to start from.

    Of their run only the recipe is read, as data: its components may be gone, and what lies next to a file of weights
    is no code to run. Only the run's own model needs the components (`assembly`).

    Args:
        file: Where they are.
        run: The run that they are of, if they are of one.
        assembly: Of that run, if there is one already.
    """

    def __init__(self, file: Path, run: RunFolder | None, assembly: Assembly | None = None) -> None:
        self.file = file
        self.weights, self.thresholds = read_weights(file)
        self.run = run
        self.recipe = assembly.recipe if assembly is not None else None if run is None else _as_data(run)
        self.infos = assembly.infos if assembly is not None else {} if run is None else read_labels(run.path)
        self._assembly = assembly

    @classmethod
    def open(cls, start: str) -> Start:
        """What `train.start` names.

        Raises:
            RecipeError: Nothing there.
            CheckpointError: It is damaged, or the run has no checkpoint.
        """
        with _named():
            folder = run_of(start)
            run = RunFolder(folder) if folder is not None else None
            return cls(Path(start) if run is None or Path(start).is_file() else run.weights_file()[1], run)

    @property
    def assembly(self) -> Assembly | None:
        """The run's assembly, which imports its components; None without a run.

        Raises:
            MtframeError: One of them is missing.
        """
        if self._assembly is None and self.run is not None:
            with _named(f"{self.run.path}: "):
                self._assembly = Assembly(self.run.checked_recipe(), self.run.infos())
        return self._assembly

    def load(self, model: MultiTaskModel, assembly: Assembly) -> Loaded:
        """Loads what fits into a model, in place.

        By name and shape, except for four things that a run says more of. Rows of classes, in tensors of a head or a
        loss that have one for each, are those of classes of the same name; the others begin anew. BatchNorm statistics
        are those of a group of tasks: a group gets those of its own tasks, whatever its number. What a sharing scheme
        has for a task that the run did not have is a copy of what it has for the task whose images have the nearest
        size. And a scheme may say itself what becomes of tensors with a place for each task (`mtframe.kinds.Sharing`).

        Args:
            model: Of `assembly`.
            assembly: What will be trained.

        Raises:
            RecipeError: Nothing fits.
        """
        like = self._like(assembly)
        own = {part: task for part, task in own_parts(model).items() if part.startswith("sharing.") and task in like}
        state = model.state_dict()
        sources = {name: source for name in state if (source := self._source(name, own, like)) is not None}
        found = self._found(sources, model, assembly, like)
        rows, unnamed = self._rows_by_class(found, model, assembly)
        fitting = {
            name: tensor
            for name, tensor in found.items()
            if tensor.shape == state[name].shape and tensor.is_complex() == state[name].is_complex()
        }
        unfit = {
            name: (tuple(state[name].shape), tuple(tensor.shape))
            for name, tensor in found.items()
            if name not in fitting
        }
        shared = [name for name in state if name.startswith("sharing.")]
        if 2 * sum(name in fitting for name in shared) <= len(shared):
            # Another backbone keeps its own, whatever of the old one happens to fit.
            fitting = {name: tensor for name, tensor in fitting.items() if name not in NORMALISATION}
        if not fitting:
            raise RecipeError(
                f"train.start: nothing in {self.file} fits this model: of its {len(self.weights)} tensors none has "
                f"both name and shape of one here, such as {next(iter(state))}"
            )
        take_weights(model, fitting)
        sources = {name: source for name, source in sources.items() if name in fitting}
        missing = [name for name in state if name not in fitting and name not in unfit]
        unused = sorted(self.weights.keys() - set(sources.values()) - unfit.keys())
        copied = {task for part, task in own.items() for name, source in sources.items()
                  if name != source and is_within(name, (part,))}  # fmt: skip
        return Loaded(
            self.file, sources, unfit, missing, unused, {task: known for task, known in like.items() if task in copied},
            self._thresholds_in(assembly.recipe), rows=rows, unnamed=[name for name in unnamed if name in sources],
        )  # fmt: skip

    def _thresholds_in(self, recipe: Recipe) -> dict[str, Thresholds]:
        """By task, the thresholds of those that look at pictures there as they do here."""
        old = self.recipe
        return {
            task: its
            for task, its in self.thresholds.items()
            if old is not None and {task} <= old.tasks.keys() & recipe.tasks.keys()
            and old.seeing(task) == recipe.seeing(task)
        }  # fmt: skip

    def _found(
        self, sources: Mapping[str, str], model: MultiTaskModel, assembly: Assembly, like: Mapping[str, str]
    ) -> dict[str, Tensor]:
        """The tensors to start from, of whatever shape, by the names that the model has for them."""
        rows, groups = self._rows(assembly, like)
        theirs = tuple(self.recipe.tasks) if self.recipe is not None else ()
        takes_over = model.sharing if self.recipe is not None and isinstance(model.sharing, TakesOver) else None
        found = {}
        for name, tensor in model.state_dict().items():
            if name not in sources:
                continue
            given = self.weights[sources[name]]
            # What the recipe does not show, as several sizes in training, leaves another number of groups.
            given = _regrouped(name, given, tensor, rows if given.dim() and len(given) == groups else None)
            if given.shape != tensor.shape and takes_over is not None and name.startswith("sharing."):
                given = takes_over.taken_over(name.removeprefix("sharing."), given, theirs, like)
            found[name] = given
        return found

    def _rows_by_class(
        self, found: dict[str, Tensor], model: MultiTaskModel, assembly: Assembly
    ) -> tuple[dict[str, tuple[int, int]], list[str]]:
        """Puts rows of classes where the classes of their names are; what has none of them is taken out of `found`.

        Returns:
            By tensor whose classes are not those of the run, how many rows were taken and how many it has; and the
            tensors with rows of classes of which nobody knows the names.
        """
        counts, unnamed = dict[str, tuple[int, int]](), list[str]()
        for task, info in assembly.infos.items():
            old = self.infos.get(task)
            if (old is None and self.run is not None) or (old is not None and old.classes == info.classes):
                continue
            state = model.state_dict()
            for name, axis in class_axes(model, assembly, task).items():
                if name not in found:
                    continue
                if old is None:
                    unnamed.append(name)
                    continue
                tensor, count = by_name(found[name], state[name], axis, old.classes, info.classes)
                counts[name] = count, len(info.classes)
                if count:
                    found[name] = tensor
                else:
                    del found[name]
        return counts, unnamed

    def model(self) -> MultiTaskModel:
        """The run's own model, with these weights. Raises CheckpointError if they are of no run."""
        if self.assembly is None:
            raise CheckpointError(
                f"train.start: {self.file}: in no run, so nobody knows of which model these weights are"
            )
        model = self.assembly.model(restoring=True)
        check_fit(model, self.weights, self.file)
        take_weights(model, self.weights)
        return model

    def _like(self, assembly: Assembly) -> dict[str, str]:
        """For each task that the run did not have, the first of those that it had with the nearest size."""
        if self.recipe is None:
            return {}
        old, tasks = self.recipe.tasks, assembly.recipe.tasks
        return {
            task: min(old, key=lambda known: abs(old[known].size - part.size))
            for task, part in tasks.items()
            if task not in old
        }

    def _rows(self, assembly: Assembly, like: Mapping[str, str]) -> tuple[list[int] | None, int]:
        """Whose BatchNorm statistics each group of tasks here gets, as the number of a group there.

        Returns:
            These numbers, None without a recipe of the run; and how many groups there are there.
        """
        if self.recipe is None:
            return None, 0
        groups = self._groups(assembly)
        at = {task: number for number, group in enumerate(groups) for task in group}
        # A group that has a task of the run goes on with its statistics.
        rows = [at[next((task for task in group if task in at), like.get(group[0], ""))] for group in assembly.groups()]
        return rows, len(groups)

    def _groups(self, assembly: Assembly) -> list[list[str]]:
        """The run's tasks by pass: `Assembly.groups`, except for transforms that are not here."""
        assert self.recipe is not None
        here = assembly.recipe.tasks
        groups: dict[object, list[str]] = {}
        for name, part in self.recipe.tasks.items():
            known = name in here and here[name].transform == part.transform
            fixed = not known or assembly.transform(name, train=True).fixed_size
            groups.setdefault(part.size if fixed else part.images or name, []).append(name)
        return list(groups.values())

    def _source(self, name: str, own: Mapping[str, str], like: Mapping[str, str]) -> str | None:
        """The name of the tensor that one of the model starts from; None if there is none."""
        if name in self.weights:
            return name
        copies = (part.removesuffix(task) + like[task] + name.removeprefix(part)
                  for part, task in own.items() if is_within(name, (part,)))  # fmt: skip
        return next((copy for copy in copies if copy in self.weights), None)


def _as_data(run: RunFolder) -> Recipe | None:
    """A run's recipe as it was written; None if it cannot be read. Imports no component."""
    try:
        return Recipe.from_plain(read_recipe(run.recipe_file), run.path.resolve(), presets=False)
    except RecipeError:
        return None


@contextmanager
def _named(where: str = "") -> Iterator[None]:
    """Says that an error is one of what training starts from, not of the recipe that says so."""
    try:
        yield
    except MtframeError as error:
        if str(error).startswith("train.start:"):
            raise
        raise type(error)(f"train.start: {where}{error}") from error


def start_model(assembly: Assembly, *, restoring: bool) -> tuple[MultiTaskModel, Loaded | None]:
    """The model that training begins with, and what of it was loaded from `train.start`.

    Args:
        assembly: The recipe's parts.
        restoring: All weights will be replaced by those of a resumed run.

    Raises:
        MtframeError: What `train.start` names cannot be used.
    """
    start = assembly.recipe.train.start
    if restoring or start is None:
        return assembly.model(restoring=restoring), None
    weights = Start.open(start)
    # Pretrained weights are fetched only where something is left to them.
    model = assembly.model(restoring=True)
    loaded = weights.load(model, assembly)
    parts = assembly.restoring_parts()
    if fresh := [part for part in parts if any(is_within(name, (part,)) for name in (*loaded.missing, *loaded.unfit))]:
        model = assembly.model(restoring=True, fresh=fresh)
        loaded = weights.load(model, assembly)
    return model, loaded


def _regrouped(name: str, found: Tensor, wanted: Tensor, rows: Sequence[int] | None) -> Tensor:
    """BatchNorm statistics, of all tasks (C,) or by group (G, C), for the model's groups; other tensors as they are."""
    kind = name.rpartition(".")[2]
    dims = 0 if kind == "num_batches_tracked" else 1
    if kind not in STATISTICS or max(found.dim(), wanted.dim()) == dims:
        return found
    if found.dim() == dims:
        return torch.stack([found] * len(wanted))
    if rows is None:
        return found
    return found[rows] if wanted.dim() > dims else found[rows[0]]
