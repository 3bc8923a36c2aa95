"""The folder of a run."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from mtframe._labels import read_labels
from mtframe._origins import Origins, changed, keep_sources, revive
from mtframe._overrides import add_hooks, apply_overrides
from mtframe._trust import COMPONENTS, agree, check_trusted, code_of, recorded, within
from mtframe.data import DataInfo
from mtframe.errors import CheckpointError, Code, MtframeError, RecipeError, TrainingError, pasted
from mtframe.files import is_partial
from mtframe.metrics import Thresholds
from mtframe.paths import file_digest, regular
from mtframe.recipe import CheckedRecipe, Recipe, in_file, name_from_here, read_recipe
from mtframe.registry import split_local
from mtframe.yaml import parse_yaml

from ._changes import LENGTH, Changes, another_experiment, check_changes, described, differences, others
from ._checkpoint import KEPT, LAST, STATE, WEIGHTS, Checkpoint, there, waiting, whole, write
from ._environment import FORMAT, Environment, environment
from ._files import digest, write_text
from ._weights import check_fit, take_weights
from ._writer import RESERVED, Writer

LOG = logging.getLogger("mtframe")

T = TypeVar("T")

# Bytes: with fewer free, a file that could not be written did not fit.
_NEARLY_FULL = 1 << 20


class RunFolder:
    """`runs/NAME/`: recipe, environment, labels, metrics, log and checkpoints of one training, and what observers add.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.recipe_file = self.path / "recipe.yaml"
        self.metrics_json = self.path / "metrics.json"
        self.gradients_csv = self.path / "gradients.csv"
        self.log_file = self.path / "log.txt"
        self.checkpoints = self.path / "checkpoints"
        self._writer = Writer(self.path)
        self._writers = 0
        self._made: list[Path] = []
        self._reserved = False
        # What checkpoints are of, as this object has created the run or taken it up.
        self._trained: dict[str, Any] | None = None
        self._labels: str | None = None
        self._broken: set[str] = set()
        # Where a training goes on from, once it is taken up, and what of its recipe has changed since.
        self.taken_up: Checkpoint | None = None
        self.changes: Changes = {}

    @classmethod
    def reserve(cls, path: Path, *, numbered: bool = False) -> RunFolder:
        """Makes the folder of a run to come, before anything is built; `writing` then takes it.

        Args:
            path: The folder.
            numbered: Take the first free number behind its name if it is there already.

        Raises:
            RecipeError: It is there already and not empty, or cannot be made.
        """
        folder, count, reserved = path, 1, False
        made = [parent for parent in path.parents if not parent.exists()]
        while True:
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if not numbered:
                    break
                count += 1
                folder = path.with_name(f"{path.name}-{count}")
            except OSError as error:
                raise RecipeError(f"--out: {folder} cannot be made ({error.strerror or error})") from None
            else:
                reserved = True
                break
        run = cls(folder)
        run._made, run._reserved = made, reserved
        run.check_new()
        return run

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within it no other process writes into the folder, nor another object of this one.

        A folder that holds no run at the end, because what was to become one failed, is removed.

        Raises:
            RecipeError: Another one does, and who; or the folder cannot be written.
        """
        if self._writers == 0:
            try:
                self._writer.acquire()
            except TrainingError:
                # It was nobody's when it could not be written.
                if self._reserved and self._is_empty():
                    self._remove()
                raise
        self._writers += 1
        try:
            yield
        finally:
            self._writers -= 1
            if self._writers == 0:
                if self._is_empty():
                    self._remove()
                self._writer.release()

    def _remove(self) -> None:
        """Removes the folder, and those above it that were made for it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            for parent in self._made:
                parent.rmdir()

    def create(
        self,
        recipe: Recipe,
        infos: Mapping[str, DataInfo],
        checkpoints: Mapping[str, tuple[Mapping[str, torch.Tensor], Mapping[str, Thresholds]]] | None = None,
    ) -> RunFolder:
        """Makes a run of this folder, and returns it.

        Args:
            recipe: The resolved recipe.
            infos: DataInfo by task.
            checkpoints: By name of a checkpoint, of a run that is not trained but made of another, weights and the
                thresholds that were chosen with them.

        Raises:
            RecipeError: It is there already and not empty, cannot be made, or another process writes there.
            TrainingError: It cannot be written.
        """
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError(f"--out: {self.path} cannot be made ({error.strerror or error})") from None
        with self.writing():
            # Another process may have been faster.
            self.check_new()
            self._fill(recipe, infos, checkpoints or {})
        return self

    def _fill(
        self,
        recipe: Recipe,
        infos: Mapping[str, DataInfo],
        checkpoints: Mapping[str, tuple[Mapping[str, torch.Tensor], Mapping[str, Thresholds]]],
    ) -> None:
        labels = json.dumps({task: _plain(info) for task, info in infos.items()})
        try:
            kept = keep_sources(recipe, self.path)
            self._trained, self._labels = parse_yaml(kept.to_yaml(), "recipe"), digest(labels.encode())
            self.checkpoints.mkdir()
            for name, (weights, thresholds) in checkpoints.items():
                self.save_checkpoint(name, weights, step=None, thresholds=thresholds)
            write_text(self.path / "labels.json", labels)
            code = code_of(self._resolved(self._trained).named_files(), self.path, {})
            facts = {**environment(recipe, infos), "files": self._digests(code)}
            write_text(self.path / "environment.json", json.dumps(facts, indent=2) + "\n")
            # Last: a folder with a recipe is a run.
            write_text(self.recipe_file, kept.to_yaml())
            # Whoever trains it has run its code already.
            agree(code, for_good=True)
        except MtframeError:
            # It was new, and nothing is in it that is worth keeping: the same call can be made again.
            for made in self.path.iterdir():
                if made.is_dir():
                    shutil.rmtree(made, ignore_errors=True)
                elif made.name not in RESERVED:
                    made.unlink()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder of an existing run.

        Raises:
            RecipeError: It is not there, or is no run.
        """
        run = cls(path)
        if not run.recipe_file.is_file():
            what = "no such folder" if not run.path.exists() else "no recipe.yaml in it, so it is no run"
            raise RecipeError(f"{run.path}: {what}. A run is what 'mtframe train' writes, by default under runs/")
        run.check_format()
        return run

    def check_format(self) -> None:
        """Raises RecipeError if the run was written by a version whose runs this one cannot read."""
        found = self._environment.format
        if found != FORMAT:
            raise RecipeError(
                f"{self.path}: a run of format {found}, and this version of mtframe reads format {FORMAT}. Load it "
                f"with the version that wrote it, or train again (CHANGELOG.md says what changed in recipes): "
                f"mtframe train {pasted(self.recipe_file)}"
            )

    def check_new(self) -> None:
        """Raises RecipeError if there is something in this folder already, which a new run must not replace."""
        if not self.path.exists() or self._is_empty():
            return
        # Without, it is no run, is made of another one, or was stopped before there was anything to go on with.
        goes_on = self.recipe_file.is_file() and (self.checkpoints / "last" / "training.pt").is_file()
        again = f"mtframe train --resume {pasted(self.path)}"
        hint = f", or, if it was stopped, go on with the run in it: {again}" if goes_on else ""
        raise RecipeError(f"--out: {self.path} already exists and is not empty. Choose another folder{hint}")

    def _is_empty(self) -> bool:
        # A process that was killed as it wrote the first file has left a part of it.
        return self.path.is_dir() and all(file.name in RESERVED or is_partial(file) for file in self.path.iterdir())

    def recipe(self, overrides: Sequence[str] = (), hooks: Sequence[str] = ()) -> Recipe:
        """The resolved recipe of this run, changed by `key=value` texts.

        Presets are not asked again, and components that have changed their options bring old ones up to date.

        Raises:
            UntrustedError: Its recipe names Python files that the user has not agreed to run.
            RecipeError: It names files outside of its `components/`, or others than were trained.
        """
        check_trusted(self.code(), self.path)
        with in_file(self.recipe_file):
            recipe = self._resolved(
                self._with(revive(read_recipe(self.recipe_file), self._origins()), overrides, hooks)
            )
            # Of the run's own, what the user names by hand is no less a stranger's.
            code = self._code_of(within(recipe.named_files(), self.path))
        check_trusted(code, self.path)
        return recipe

    def _with(self, plain: dict[str, Any], overrides: Sequence[str], hooks: Sequence[str]) -> dict[str, Any]:
        """A recipe's plain values with a user's changes, who names files relative to the current folder."""
        return apply_overrides(add_hooks(plain, hooks, (), self._named_here), overrides, self._named_here)

    def _named_here(self, name: str) -> str:
        """What the user means by a component's name; of a file that the run has a copy of, the copy."""
        name = name_from_here(name)
        local = split_local(name)
        if local is None:
            return name
        file, rest = local
        with suppress(OSError):
            wanted = file_digest(file)
            for copy in sorted((self.path / COMPONENTS).glob("*.py")):
                if copy.stem.startswith(file.stem) and file_digest(copy) == wanted:
                    return f"./{COMPONENTS}/{copy.name}{rest}"
        return name

    def code(self) -> list[Code]:
        """The run's own Python files. Raises RecipeError for one outside of `components/`, or that has changed."""
        with in_file(self.recipe_file):
            return self._code_of(self._resolved(read_recipe(self.recipe_file)).named_files())

    def _code_of(self, named: Iterable[tuple[str, str]]) -> list[Code]:
        return code_of(named, self.path, recorded(self.path))

    def _digests(self, code: Iterable[Code]) -> dict[str, str]:
        """SHA-256 of the run's own files, by path in its folder."""
        return {one.file.relative_to(self.path.resolve()).as_posix(): one.digest for one in code}

    def _resolved(self, plain: Mapping[str, Any]) -> Recipe:
        """The recipe of plain values that a run has: nothing is left to presets, files are relative to the folder."""
        return Recipe.from_plain(plain, self.path.resolve(), presets=False)

    def checked_recipe(
        self, overrides: Sequence[str] = (), *, training: bool = False, hooks: Sequence[str] = ()
    ) -> CheckedRecipe:
        """The recipe, once all its components are found.

        Args:
            overrides: `key=value` texts.
            hooks: Further observers, see `mtframe.load_recipe`.
            training: Whether what only training needs must be there too.

        Raises:
            RecipeError: A component is missing or its options are wrong; with what to install.
        """
        recipe = self.recipe(overrides, hooks)
        advice = changed(self._origins(), training=training)
        try:
            checked = recipe.check(training=training)
        except RecipeError as error:
            raise type(error)("\n".join([str(error), *advice])) from error
        for line in advice:
            LOG.warning(line)
        return checked

    def infos(self) -> dict[str, DataInfo]:
        """What the labels of each task mean. Raises CheckpointError if the file that says so is damaged or changed."""
        infos = read_labels(self.path)
        if (known := self._newest()) is not None:
            self._check_labels(known)
        return infos

    def save_checkpoint(
        self,
        name: str,
        weights: Mapping[str, Any],
        step: int | None,
        state: Mapping[str, Any] | None = None,
        thresholds: Mapping[str, Thresholds] | None = None,
    ) -> Path:
        """Writes a checkpoint; the old one of that name stays until the new one is complete.

        The `last` one before becomes `previous`, unless it was found to be damaged.

        Args:
            name: `last`, `best` or `best_TASK`.
            weights: What evaluation uses: tensors by name.
            step: Steps done; None if the run was made of another one without training.
            state: What going on needs besides: tensors, numbers, text and containers of these.
            thresholds: By task, what was chosen with these weights.

        Raises:
            TrainingError: It cannot be written, e.g. because the disk is full.
        """
        if self._trained is None or self._labels is None:
            self._trained = read_recipe(self.recipe_file)
            self._labels = digest(regular(self.path / "labels.json").read_bytes())
        folder = self.checkpoints / name
        keep = self.checkpoints / KEPT if name == LAST and name not in self._broken else None
        try:
            write(
                folder, weights, state, step=step, labels=self._labels, recipe=self._trained, thresholds=thresholds,
                keep=keep,
            )  # fmt: skip
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch.save reports a full disk as a RuntimeError that says nothing of it.
            full = shutil.disk_usage(self.path).free < _NEARLY_FULL
            raise TrainingError(
                f"checkpoint {folder} could not be written ({'the disk is full' if full else error}); "
                + (
                    f"the checkpoint before it is kept in {folder}. Free some space, then go on with: "
                    f"mtframe train --resume {pasted(self.path)}"
                    if folder.exists()
                    else f"there is none before it. Free some space, remove {self.path}, and train again"
                )
            ) from error
        self._broken.discard(name)
        return folder

    def load_weights(self, model: nn.Module, name: str = "best") -> tuple[str, dict[str, Thresholds]]:
        """Loads a checkpoint's evaluation weights; `last` where there is no `best` yet.

        Warns of what in `recipe.yaml` is not what was trained.

        Returns:
            The name of the checkpoint that was loaded; and by task, the thresholds that were chosen with its weights.

        Raises:
            CheckpointError: There is none, it or `labels.json` is damaged, or it is of another architecture.
        """
        name, folder = self._found(name)
        checkpoint, weights, thresholds = self._whole(
            folder, lambda checkpoint: (checkpoint, checkpoint.weights(), checkpoint.thresholds())
        )
        self._check_labels(checkpoint)
        changes = differences(checkpoint.manifest.recipe, read_recipe(self.recipe_file))
        # What may change while it is trained has changed since, perhaps.
        if changed := described(others(changes, read_recipe(self.recipe_file))):
            LOG.warning("%s is not what was trained: %s", self.recipe_file, "; ".join(changed))
        with self._explained():
            check_fit(model, weights, folder / WEIGHTS)
        take_weights(model, weights)
        return name, thresholds

    def weights_file(self, name: str = "best") -> tuple[str, Path]:
        """A checkpoint's name and file of weights; of `last` where there is no `best` yet.

        Raises:
            CheckpointError: There is none.
        """
        name, folder = self._found(name)
        return name, folder / WEIGHTS

    def take_up(self, overrides: Sequence[str] = (), hooks: Sequence[str] = ()) -> CheckedRecipe:
        """The recipe that a stopped training goes on with; what of it has changed since is in `changes`.

        Args:
            overrides: `key=value` texts.
            hooks: Further observers, see `mtframe.load_recipe`.

        Raises:
            RecipeError: With these changes it would be another experiment, or a component is missing.
            UntrustedError: Its recipe names Python files that the user has not agreed to run.
            CheckpointError: There is no checkpoint to go on from.
        """
        # Before any message that advises to train its recipe.
        check_trusted(self.code(), self.path)
        checkpoint = self.taken_up = self.last()
        with in_file(self.recipe_file):
            plain = self._with(read_recipe(self.recipe_file), overrides, hooks)
        self.changes = differences(checkpoint.manifest.recipe, plain)
        check_changes(self.changes, plain, self.path)
        self._trained, self._labels = plain, checkpoint.manifest.labels
        return self.checked_recipe(overrides, training=True, hooks=hooks)

    def check_length(self, steps_of: Callable[[Mapping[str, Any]], int], steps: int) -> None:
        """Raises RecipeError if a training that was taken up has become shorter.

        Args:
            steps_of: How many steps a training has with values of `train.epochs` and `train.steps`, by key.
            steps: How many it has.
        """
        length = {key: values for key, values in self.changes.items() if key in LENGTH}
        before = steps_of({key: then for key, (then, _) in length.items()}) if length else steps
        if before > steps:
            raise another_experiment(length, self.path, f": {steps} steps, and they were {before}")

    def announced_changes(self) -> list[str]:
        """What of the recipe has changed since the checkpoint that a training goes on from, and what it means."""
        lines = [f"changed: {line}" for line in described(self.changes)]
        if any(key in LENGTH for key in self.changes):
            lines.append("the learning rate of the steps to come is that of a training which is as long from the start")
        return lines

    def keep_changes(self) -> None:
        """Writes the recipe that a training was taken up with, if it has changed, and copies of what it names anew.

        Raises:
            TrainingError: It cannot be written.
            PluginError: A file that it names cannot be used by itself.
        """
        if self._trained is None or not differences(read_recipe(self.recipe_file), self._trained):
            return
        before = self.code()
        kept = keep_sources(self._resolved(self._trained), self.path)
        self._trained = parse_yaml(kept.to_yaml(), "recipe")
        code = self._code_of(self._resolved(self._trained).named_files())
        self._record(self._digests(code), trained=kept.train.steps != 0)
        write_text(self.recipe_file, kept.to_yaml())
        # What the user has added. What somebody else has trained may be agreed to for this process only.
        agree([one for one in code if one not in before], for_good=True)

    def _record(self, files: Mapping[str, str], *, trained: bool) -> None:
        """Adds the run's own files to `environment.json`, and that a run of `train.steps=0` is trained by now.

        A run that has lost the file goes on without.
        """
        file = self.path / "environment.json"
        with suppress(OSError, ValueError):
            facts = json.loads(regular(file).read_bytes())
            now = {**facts, "files": {**recorded(self.path), **files}}
            if trained and facts.get("trained") is False:
                now["trained"] = True
            if now != facts:
                write_text(file, json.dumps(now, indent=2) + "\n")

    def last(self) -> Checkpoint:
        """The newest whole checkpoint that a training can go on from.

        Logs a warning if that is not `last`.

        Raises:
            RecipeError: The run was made of another one without training.
            CheckpointError: There is none yet, or none is whole.
        """
        wrong = []
        for name in (LAST, KEPT):
            folder = there(self.checkpoints / name)
            if folder is None:
                continue
            try:
                checkpoint = Checkpoint.open(folder)
                if checkpoint.manifest.step is None:
                    raise RecipeError(
                        f"{self.path}: made of another run without training, so there is nothing to go on with. Train "
                        f"it further with: mtframe train {pasted(self.recipe_file)} --from {pasted(self.path)}"
                    )
                checkpoint.check(STATE)
            except CheckpointError as error:
                wrong.append(str(error))
                self._broken.add(name)
                continue
            if name != LAST:
                why = "; ".join(wrong) or f"{self.checkpoints / LAST}: missing"
                LOG.warning("%s. Going on from step %d, of the checkpoint before", why, checkpoint.manifest.step)
            return checkpoint
        if wrong:
            raise CheckpointError(
                "\n".join(wrong) + f"\nNo whole checkpoint is left to go on from. What other checkpoints hold can be a "
                f"start: mtframe train {pasted(self.recipe_file)} --from {pasted(self.path)}"
            )
        raise CheckpointError(
            f"{self.path}: stopped before its first checkpoint, so there is nothing to go on from. Start again: "
            f"mtframe train {pasted(self.recipe_file)} --out ANOTHER_FOLDER"
        )

    def broken(self, steps: Mapping[str, int], last: int) -> dict[str, str]:
        """Of some checkpoints, by name, what is wrong with those that are missing, damaged or of another step.

        Args:
            steps: By name, the step that it is to be of.
            last: Steps done. What a killed training has saved later will be saved again.
        """
        wrong = {}
        for name, step in steps.items():
            folder = there(self.checkpoints / name)
            try:
                if folder is None:
                    raise CheckpointError(f"{self.checkpoints / name}: missing")
                checkpoint = Checkpoint.open(folder)
                checkpoint.check()
                if (found := checkpoint.manifest.step) is not None and found <= last and found != step:
                    raise CheckpointError(f"{folder}: of step {found}, and the one that was saved there of step {step}")
            except CheckpointError as error:
                wrong[name] = str(error)
        return wrong

    def _found(self, name: str) -> tuple[str, Path]:
        """A checkpoint's name and folder; of `last` where there is no `best` yet."""
        for _ in waiting():
            # Asked first: what is saved meanwhile may be there by the time that this is looked for.
            saving = any(self.checkpoints.glob(".*.partial"))
            for known in (name, *((LAST, KEPT) if name == "best" else ())):
                if there(self.checkpoints / known) is not None:
                    return known, self.checkpoints / known
            if not saving:
                break
        names = sorted(p.name for p in self.checkpoints.glob("[!.]*")) if self.checkpoints.is_dir() else []
        known = f"there are {', '.join(names)}" if names else "there is none"
        raise CheckpointError(f"{self.checkpoints / name}: no such checkpoint; {known}")

    def _whole(self, folder: Path, read: Callable[[Checkpoint], T]) -> T:
        try:
            return whole(folder, read)
        except CheckpointError as error:
            others = sorted(p.name for p in self.checkpoints.glob("[!.]*") if p.name != folder.name)
            hint = f"\nOther checkpoints of this run: {', '.join(others)}" if others else ""
            raise CheckpointError(f"{error}{hint}") from None

    def _newest(self) -> Checkpoint | None:
        """Some checkpoint, for what all of them know."""
        for name in (LAST, "best", KEPT):
            if there(self.checkpoints / name) is None:
                continue
            with suppress(CheckpointError):
                return whole(self.checkpoints / name, lambda checkpoint: checkpoint)
        return None

    def _check_labels(self, checkpoint: Checkpoint) -> None:
        file = self.path / "labels.json"
        if digest(regular(file).read_bytes()) != checkpoint.manifest.labels:
            raise CheckpointError(
                f"{file}: not what the run was trained with: its SHA-256 is not that in {checkpoint.folder}/"
                "checkpoint.json, so classes may bear each other's names. Copy it again from where the run was trained"
            )

    def _origins(self) -> Origins:
        return self._environment.origins

    @cached_property
    def _environment(self) -> Environment:
        return Environment.read(self.path / "environment.json")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Adds to an error of weights what has changed since they were trained."""
        try:
            yield
        except CheckpointError as error:
            raise CheckpointError("\n".join([str(error), *changed(self._origins(), training=False)])) from None


def _plain(info: DataInfo) -> dict[str, Any]:
    """What labels mean, without what nobody knows."""
    return {name: value for name, value in asdict(info).items() if value is not None}


def trust(path: str | os.PathLike[str]) -> None:
    """Agrees to run the Python files of a run, in this process.

    Args:
        path: The run's folder.

    Raises:
        RecipeError: No run there, or its files are not its own, or not those that were trained.
    """
    agree(RunFolder.open(path).code(), for_good=False)
