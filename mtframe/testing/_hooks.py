"""Checks of observers."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mtframe.assembly import Assembly
from mtframe.errors import PluginError, RecipeError
from mtframe.hooks import Hooks
from mtframe.recipe import Recipe
from mtframe.run import RunFolder

from ._check import checks
from ._subject import SIZE
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

_NAME = "the observer"


def make(subject: Subject) -> Any:
    """An observer, as a recipe makes it."""
    return subject.build()


def known_hooks(subject: Subject) -> None:
    """It has methods marked `@hookimpl`, of names and with arguments that hooks have."""
    observer, hooks = make(subject), Hooks()
    hooks.register(observer, _NAME)
    # What pluggy's marker leaves on a function.
    marked = [name for name in dir(observer) if hasattr(getattr(observer, name, None), "mtframe_impl")]
    expect(marked, "none of its methods is marked @hookimpl, so that it is never called")


def survives_a_training(subject: Subject) -> None:
    """A training of two steps, evaluated and saved, with --strict: nothing that it is told of makes it raise."""
    # Later than the checks of other kinds: training needs what they do not.
    from mtframe.training import Trainer

    hooks = Hooks(strict=True)
    try:
        hooks.register(make(subject), _NAME)
    except PluginError as error:
        raise Skip("it cannot be registered; see the check known-hooks") from error
    recipe = _recipe(subject)
    try:
        hooks.call.recipe_read(recipe=recipe)
    except RecipeError as refused:
        raise Skip(f"it refuses the recipe that there is: {refused}") from refused
    with TemporaryDirectory() as folder:
        assembly = Assembly(recipe)
        run = RunFolder(Path(folder) / "run").create(recipe, assembly.infos)
        Trainer(assembly, run, hooks).fit()


def _recipe(subject: Subject) -> Recipe:
    """Of the first preset whose data is at hand, as small as can be. Raises Skip where there is none."""
    tried = []
    for preset in subject.kit.neighbours("preset"):
        for data in subject.kit.neighbours("dataset"):
            if data.component.name not in subject.kit.named_by(preset, "dataset"):
                continue
            try:
                subject.kit.splits(data)
                return _smallest(preset.component.qualified, data)
            except Exception as error:
                tried.append(f"{preset}: {error}")
    raise Skip(f"no preset has data at hand to train on (tried {'; '.join(tried) or 'none'})")


def _smallest(preset: str, data: Subject) -> Recipe:
    dataset = {"name": data.component.qualified, **data.options}
    task = {"preset": preset, "dataset": dataset, "size": SIZE, "batch_size": 4, "flip_test": False}
    train = {"steps": 2, "log_every": 1, "workers": 0, "precision": "fp32", "ema": None, "device": "cpu"}
    plain = {"backbone": "tutorial@mtframe", "tasks": {"checked": task}, "hooks": [], "train": train}
    recipe = Recipe.from_plain(plain)
    recipe.check()
    return recipe


CHECKS = checks(known_hooks, survives_a_training)
