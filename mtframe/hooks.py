"""Lifecycle hooks: observers of recipes, training, evaluation and checkpoints (TensorBoard and the like).

An observer is a component of kind `hooks`: a class, whose keyword-only parameters are options, with those hooks it
wants, and of each hook those arguments it wants:

    from mtframe.hooks import hookimpl

    class Printer:
        @hookimpl
        def evaluation_ended(self, step, metrics):
            print(step, metrics)

It observes the trainings that name it, `hooks: [printer]` in a recipe or `mtframe train --with printer`. What a hook
returns is ignored, and an observer that raises is named, logged and disabled, so that it never costs a training.
Wrappers around hooks are not supported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from mtframe._notes import note
from mtframe.errors import PluginError, RecipeError, described

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mtframe.data import Batch
    from mtframe.recipe import Recipe
    from mtframe.training import Trainer

LOG = logging.getLogger("mtframe.hooks")

hookimpl = pluggy.HookimplMarker("mtframe")
_hookspec = pluggy.HookspecMarker("mtframe")


class HookSpecs:
    """The hooks, in the order of a run."""

    @_hookspec
    def recipe_read(self, recipe: Recipe) -> None:
        """The recipe is read, filled from presets and checked; nothing is built yet.

        An observer that cannot work with it raises RecipeError, which is reported as any mistake in a recipe is.

        Args:
            recipe: A copy of the resolved recipe.
        """

    @_hookspec
    def model_assembled(self, model: nn.Module, recipe: Recipe) -> None:
        """The model is built and on its device; its weights are initialised, or restored when a run is resumed.

        Args:
            model: The multi-task model.
            recipe: The resolved recipe.
        """

    @_hookspec
    def training_started(self, trainer: Trainer) -> None:
        """The first step comes next.

        Args:
            trainer: The Trainer: `steps`, `step`, `model`, `optimizer`, `recipe`, `run` (its folder), `history` and
                `best_steps` (its evaluations so far), and `stop(reason)`, which ends the training early.
        """

    @_hookspec
    def step_started(self, step: int, batches: Sequence[Mapping[str, Batch]]) -> None:
        """The batches of the next step are read, the learning rate is set; the weights are those of the step before.

        Called at every step, so be quick.

        Args:
            step: Optimiser steps done so far.
            batches: Those that the step accumulates, each by task, on the CPU. Not to be changed.
        """

    @_hookspec
    def step_ended(self, step: int, losses: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The optimiser has stepped. Called at every step, so be quick.

        Args:
            step: Optimiser steps done so far.
            losses: Scalars on the device by task and name, unweighted. Where a step accumulates several batches, the
                mean over those in which the task took part. Reading one waits for the device.
        """

    @_hookspec
    def metrics_logged(self, step: int, values: Mapping[str, float]) -> None:
        """Another `train.log_every` steps are done.

        Args:
            step: Optimiser steps done so far.
            values: `epoch`, `lr`, `images_per_second`, by `epochs_TASK` how often each of its images was seen so far,
                and by `TASK/TERM` the mean of each loss term since the last call. With `train.gradients_every` also
                `cosine.A.B`, `gradient_norm.A` and `effective_lr.A` of the last measured step since.
        """

    @_hookspec
    def evaluation_ended(
        self, step: int, metrics: Mapping[str, Mapping[str, float]], scores: Mapping[str, float]
    ) -> None:
        """All tasks are evaluated.

        Args:
            step: Optimiser steps done so far.
            metrics: Values by task and name.
            scores: Of these, by task, the primary value, which ranks checkpoints.
        """

    @_hookspec
    def checkpoint_saved(self, path: Path, step: int) -> None:
        """A checkpoint is complete on disk.

        Args:
            path: Its folder: `.../checkpoints/last`, `best` or `best_TASK`.
            step: Optimiser steps done so far.
        """

    @_hookspec
    def training_ended(self, error: BaseException | None) -> None:
        """Training is over, one way or another.

        Args:
            error: What ended it early (`Interrupted` for Ctrl-C), or None.
        """


class Hooks:
    """The registered observers, and `call`, which calls them: `hooks.call.step_ended(step=3, losses=losses)`.

    Args:
        strict: Re-raise what an observer raises, instead of disabling the observer.

    Attributes:
        disabled: What each disabled observer raised, by its name.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.disabled: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self.call = Calls(self)
        self._manager = pluggy.PluginManager("mtframe")
        self._manager.add_hookspecs(HookSpecs)

    @property
    def names(self) -> list[str]:
        """Names of the observers that are registered and not disabled."""
        return [name for name, plugin in self._manager.list_name_plugin() if plugin is not None]

    def register(self, plugin: object, name: str | None = None, label: str | None = None) -> None:
        """Adds an observer.

        Args:
            plugin: An object with methods marked `@hookimpl`.
            name: What messages call it; its module and class if None.
            label: What listings know it by; it is noted there if it raises.

        Raises:
            PluginError: It implements no hook, one that does not exist, one with arguments that it does not
                have, or one as a wrapper.
        """
        name = name or f"{type(plugin).__module__}.{type(plugin).__qualname__}"
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            callers = self._manager.get_hookcallers(plugin) or []
            implementations = [i for caller in callers for i in caller.get_hookimpls() if i.plugin is plugin]
            if any(i.wrapper or i.hookwrapper for i in implementations):
                raise ValueError("wrappers around hooks are not supported")
            if not implementations:
                raise ValueError(f"none of its methods is marked with @hookimpl{self._unmarked(plugin)}")
        except (ValueError, pluggy.PluginValidationError) as error:
            if self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)
            raise PluginError(f"{name}: cannot observe: {' '.join(str(error).split())}") from error
        if label is not None:
            self._labels[name] = label

    def _unmarked(self, plugin: object) -> str:
        """Which methods look as if they were meant to be called."""
        found = [name for name in vars(self._manager.hook) if callable(getattr(type(plugin), name, None))]
        return f"; it has {', '.join(found)}" if found else ""

    def _call(self, hook: str, arguments: Mapping[str, Any]) -> None:
        # One by one, not by pluggy's own call, which ends at the first that raises.
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except KeyboardInterrupt:
                raise
            # Not only Exception: an observer does not end a training, not even by sys.exit.
            except BaseException as error:
                if self.strict or (hook == "recipe_read" and isinstance(error, RecipeError)):
                    raise
                name = implementation.plugin_name
                said = described(error)
                LOG.warning("%s is disabled: its %s raised %s", name, hook, said, exc_info=error)
                self.disabled[name] = f"{hook} raised {said}"
                if name in self._labels:
                    note(self._labels[name], f"its {hook} raised {said}")
                self._manager.unregister(implementation.plugin)


class Calls:
    """The hooks as methods, which call the observers of one registry after another.

    Args:
        registries: In the order in which they are called.
    """

    def __init__(self, *registries: Hooks) -> None:
        self._registries = registries

    def __getattr__(self, hook: str) -> Callable[..., None]:
        if not hasattr(HookSpecs, hook):
            raise AttributeError(f"no hook {hook!r}")

        def call(**arguments: Any) -> None:
            for registry in self._registries:
                registry._call(hook, arguments)

        return call
