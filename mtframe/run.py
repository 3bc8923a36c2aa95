"""A run's folder: what is in it, where, and how it is written without ever being half there."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mtframe._labels import read_labels
from mtframe._origins import Origins, changed, keep_sources, origins, revive
from mtframe.data import DataInfo
from mtframe.errors import CheckpointError, MtframeError, RecipeError, TrainingError
from mtframe.recipe import CheckedRecipe, Recipe, apply_overrides, in_file, read_recipe

LOG = logging.getLogger("mtframe")

# What is in a run's folder, and how; another number where a version could not read another one's.
_FORMAT = 2

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

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        recipe: Recipe,
        infos: Mapping[str, DataInfo],
        checkpoints: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    ) -> RunFolder:
        """Makes the folder of a new run.

        Args:
            path: The folder.
            recipe: The resolved recipe.
            infos: DataInfo by task.
            checkpoints: Weights by name of a checkpoint, of a run that is not trained but made of another.

        Raises:
            RecipeError: It is there already and not empty, or cannot be made.
            TrainingError: It cannot be written.
        """
        run = cls(path)
        run.check_new()
        try:
            run.checkpoints.mkdir(parents=True)
        except OSError as error:
            raise RecipeError(f"--out: {run.path} cannot be made ({error.strerror or error})") from None
        try:
            kept = keep_sources(recipe, run.path)
            for name, weights in (checkpoints or {}).items():
                run.save_checkpoint(name, weights)
            write_text(run.path / "labels.json", json.dumps({task: asdict(info) for task, info in infos.items()}))
            write_text(run.path / "environment.json", json.dumps(environment(recipe, infos), indent=2) + "\n")
            # Last: a folder with a recipe is a run.
            write_text(run.recipe_file, kept.to_yaml())
        except MtframeError:
            # It was new, and nothing is in it that is worth keeping: the same call can be made again.
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        return run

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
        found = self._environment().get("format", 1 if (self.path / "environment.json").is_file() else _FORMAT)
        if found != _FORMAT:
            raise RecipeError(
                f"{self.path}: a run of format {found}, and this version of mtframe reads format {_FORMAT}. Load it "
                f"with the version that wrote it, or train again (CHANGELOG.md says what changed in recipes): "
                f"mtframe train {self.recipe_file}"
            )

    def check_new(self) -> None:
        """Raises RecipeError if there is something in this folder already, which a new run must not replace."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        # Without, it is no run, is made of another one, or was stopped before there was anything to go on with.
        goes_on = self.recipe_file.is_file() and (self.checkpoints / "last" / "training.pt").is_file()
        hint = (
            f", or, if it was stopped, go on with the run in it: mtframe train --resume {self.path}" if goes_on else ""
        )
        raise RecipeError(f"--out: {self.path} already exists and is not empty. Choose another folder{hint}")

    def recipe(self, overrides: Sequence[str] = ()) -> Recipe:
        """The resolved recipe of this run, changed by `key=value` texts.

        Presets are not asked again, and components that have changed their options bring old ones up to date.
        """
        with in_file(self.recipe_file):
            plain = apply_overrides(revive(read_recipe(self.recipe_file), self._origins()), overrides)
            return Recipe.from_plain(plain, self.path.resolve(), presets=False)

    def checked_recipe(self, overrides: Sequence[str] = (), *, training: bool = False) -> CheckedRecipe:
        """The recipe, once all its components are found.

        Args:
            overrides: `key=value` texts.
            training: Whether what only training needs must be there too.

        Raises:
            RecipeError: A component is missing or its options are wrong; with what to install.
        """
        recipe = self.recipe(overrides)
        advice = changed(self._origins(), training=training)
        try:
            checked = recipe.check(training=training)
        except RecipeError as error:
            raise type(error)("\n".join([str(error), *advice])) from error
        for line in advice:
            LOG.warning(line)
        return checked

    def infos(self) -> dict[str, DataInfo]:
        """What the labels of each task mean. Raises CheckpointError if the file that says so is damaged."""
        return read_labels(self.path)

    def save_checkpoint(self, name: str, weights: Mapping[str, Any], state: Mapping[str, Any] | None = None) -> Path:
        """Writes a checkpoint; the old one of that name stays until the new one is complete.

        Args:
            name: `last`, `best` or `best_TASK`.
            weights: What evaluation uses: tensors by name.
            state: What resuming needs besides: tensors, numbers, text and containers of these.

        Raises:
            TrainingError: It cannot be written, e.g. because the disk is full.
        """
        folder, partial = self.checkpoints / name, self.checkpoints / f".{name}.partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(_apart(weights), partial / "weights.safetensors")
            if state is not None:
                torch.save(dict(state), partial / "training.pt")
            for file in partial.iterdir():
                _to_disk(file)
            _swap(partial, folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch.save reports a full disk as a RuntimeError that says nothing of it.
            full = shutil.disk_usage(self.path).free < _NEARLY_FULL
            shutil.rmtree(partial, ignore_errors=True)
            raise TrainingError(
                f"checkpoint {folder} could not be written ({'the disk is full' if full else error}); "
                + (
                    f"the checkpoint before it is kept in {folder}. Free some space, then go on with: "
                    f"mtframe train --resume {self.path}"
                    if folder.exists()
                    else f"there is none before it. Free some space, remove {self.path}, and train again"
                )
            ) from error
        return folder

    def load_weights(self, model: nn.Module, name: str = "best") -> str:
        """Loads a checkpoint's evaluation weights; `last` where there is no `best` yet.

        Returns:
            The name of the checkpoint that was loaded.

        Raises:
            CheckpointError: There is none, it is damaged, or it is of another architecture.
        """
        name, file = self.weights_file(name)
        weights = read_weights(file)
        with self._explained():
            check_fit(model, weights, file)
        take_weights(model, weights)
        return name

    def weights_file(self, name: str = "best") -> tuple[str, Path]:
        """A checkpoint's name and file of weights; of `last` where there is no `best` yet.

        Raises:
            CheckpointError: There is none.
        """
        folder = self._checkpoint(name)
        if folder is None and name == "best":
            name, folder = "last", self._checkpoint("last")
        if folder is None:
            there = sorted(p.name for p in self.checkpoints.glob("[!.]*")) if self.checkpoints.is_dir() else []
            known = f"there are {', '.join(there)}" if there else "there is none"
            raise CheckpointError(f"{self.checkpoints / name}: no such checkpoint; {known}")
        return name, folder / "weights.safetensors"

    def load_state(self) -> dict[str, Any]:
        """What resuming from `last` needs.

        Raises:
            RecipeError: The run was made of another one without training.
            CheckpointError: There is no `last` checkpoint yet, or it is damaged.
        """
        folder = self._checkpoint("last")
        if folder is None:
            raise CheckpointError(
                f"{self.path}: stopped before its first checkpoint, so there is nothing to go on from. Start again: "
                f"mtframe train {self.recipe_file} --out ANOTHER_FOLDER"
            )
        if not (folder / "training.pt").is_file():
            raise RecipeError(
                f"{self.path}: made of another run without training, so there is nothing to go on with. Train it "
                f"further with: mtframe train {self.recipe_file} --from {self.path}"
            )
        try:
            return torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{folder / 'training.pt'}: cannot be read ({error})") from None

    def _origins(self) -> Origins:
        components = self._environment().get("components")
        return components if isinstance(components, dict) else {}

    def _environment(self) -> dict[str, Any]:
        """What the run was trained with; nothing where that cannot be read: a run can be loaded without."""
        try:
            found = json.loads((self.path / "environment.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Adds to an error of weights what has changed since they were trained."""
        try:
            yield
        except CheckpointError as error:
            raise CheckpointError("\n".join([str(error), *changed(self._origins(), training=False)])) from None

    def _checkpoint(self, name: str) -> Path | None:
        folder, old = self.checkpoints / name, self.checkpoints / f".{name}.old"
        if not folder.is_dir() and old.is_dir():
            # Killed between the two renames of _swap.
            old.rename(folder)
        return folder if folder.is_dir() else None


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name. Raises CheckpointError if the file is no safetensors."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors ({error})") from None


def take_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Loads tensors by name, in place; what is not among them stays."""
    state = model.state_dict()
    # For the versions of modules, which a state dict has and a safetensors file lacks: without them BatchNorm takes the
    # file for an old one, and looks for counters where `layers` has taken them away.
    state.update(weights)
    model.load_state_dict(state)


def check_fit(model: nn.Module, weights: Mapping[str, torch.Tensor], source: object) -> None:
    """Raises CheckpointError, naming the first differences, if weights are not of this model's architecture."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected == found:
        return
    problems = [f"{name}: the model has {expected[name]}, the checkpoint {found[name]}"
                for name in expected if name in found and expected[name] != found[name]]  # fmt: skip
    problems += [f"{name}: not in the checkpoint" for name in expected if name not in found]
    problems += [f"{name}: not in the model" for name in found if name not in expected]
    more = f"\n  ... and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise CheckpointError(
        f"{source}: a checkpoint of another architecture:\n  " + "\n  ".join(problems[:5]) + more
        + "\nUse the recipe that the checkpoint was trained with."
    )  # fmt: skip


def environment(recipe: Recipe, infos: Mapping[str, DataInfo]) -> dict[str, Any]:
    """Versions of Python, the machine and every distribution that supplied a component, and which supplied which."""
    components = origins(recipe, {task: info.target for task, info in infos.items()})
    suppliers = {origin["distribution"] for origin in components.values() if "distribution" in origin}
    distributions = {"mtframe", "torch", "torchvision", "timm", *suppliers}
    versions = {}
    for name in sorted(distributions):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "format": _FORMAT,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "distributions": versions,
        "components": components,
    }


def write_text(path: Path, text: str) -> None:
    """Writes a file at once: it holds the old text or the new, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        # Not in the encoding of the system: a recipe may have letters that it lacks.
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TrainingError(f"{path} could not be written ({error.strerror or error})") from error


def _apart(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, each with memory of its own: some models use one weight in two places, safetensors takes none."""
    apart: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        shared = tensor.numel() > 0 and tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        apart[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
    return apart


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _swap(new: Path, old: Path) -> None:
    # A folder cannot be renamed over another, so the old one steps aside; see _checkpoint for a kill in between.
    aside = old.with_name(f".{old.name}.old")
    if old.exists():
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)
