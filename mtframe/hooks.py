"""Lifecycle hooks: observers of recipes, training, evaluation and checkpoints (TensorBoard and the like).

A plugin implements those hooks it wants, with any of their arguments, and is installed with one line under
the entry-point group `mtframe.hooks`:

    from mtframe.hooks import hookimpl

    class Printer:
        @hookimpl
        def evaluation_ended(self, step, metrics):
            print(step, metrics)

The line may name a class, which is constructed without arguments, or a module or an object with such
functions. Hooks observe: what they return is ignored, and one that raises is named, logged and disabled, so
that it never costs a training. Wrappers around hooks are not supported.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from mtframe.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mtframe.recipe import Recipe

GROUP = "mtframe.hooks"
LOG = logging.getLogger(GROUP)

hookimpl = pluggy.HookimplMarker("mtframe")
_hookspec = pluggy.HookspecMarker("mtframe")


class HookSpecs:
    """The hooks, in the order of a run."""

    @_hookspec
    def recipe_read(self, recipe: Recipe) -> None:
        """The recipe is read, filled from presets and checked; nothing is built yet.

        Args:
            recipe: The resolved recipe; it cannot be changed.
        """

    @_hookspec
    def model_assembled(self, model: nn.Module, recipe: Recipe) -> None:
        """The model is built and on its device; its weights are initialised, or restored when a run goes on.

        Args:
            model: The multi-task model.
            recipe: The resolved recipe.
        """

    @_hookspec
    def training_started(self, trainer: Any) -> None:
        """The first step comes next.

        Args:
            trainer: The Trainer: `steps`, `step`, `model`, `optimizer`, `recipe`, `run` (its folder).
        """

    @_hookspec
    def step_ended(self, step: int, losses: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The optimiser has stepped. Called at every step, so be quick.

        Args:
            step: Optimiser steps done so far.
            losses: Scalars on the device by task and name, unweighted. Reading one waits for the device.
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


def installed() -> list[EntryPoint]:
    """Observers of installed distributions, from their metadata alone."""
    return list(entry_points(group=GROUP))


class Hooks:
    """The registered observers, and `call`, which calls them: `hooks.call.step_ended(step=3, losses=losses)`.

    Args:
        strict: Re-raise what an observer raises, instead of disabling the observer.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.call = _Calls(self)
        self._manager = pluggy.PluginManager("mtframe")
        self._manager.add_hookspecs(HookSpecs)

    @property
    def names(self) -> list[str]:
        """Names of the observers that are registered and not disabled."""
        return [name for name, plugin in self._manager.list_name_plugin() if plugin is not None]

    def register(self, plugin: object, name: str | None = None) -> None:
        """Adds an observer.

        Args:
            plugin: An object, class instance or module with functions marked `@hookimpl`.
            name: What messages call it; its module and class if None.

        Raises:
            PluginError: It implements a hook that does not exist, with arguments that the hook does not
                have, or as a wrapper.
        """
        name = name or f"{type(plugin).__module__}.{type(plugin).__qualname__}"
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
            callers = self._manager.get_hookcallers(plugin) or []
            implementations = [i for caller in callers for i in caller.get_hookimpls() if i.plugin is plugin]
            if any(i.wrapper or i.hookwrapper for i in implementations):
                raise ValueError("wrappers around hooks are not supported")
        except (ValueError, pluggy.PluginValidationError) as error:
            if self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)
            raise PluginError(f"hooks of {name!r} cannot be used: {' '.join(str(error).split())}") from error

    def load_installed(self) -> None:
        """Imports and registers every installed observer; one that cannot be is logged and left out."""
        for entry in installed():
            name = f"{entry.name}@{entry.dist.name}" if entry.dist else entry.name
            try:
                plugin = entry.load()
                self.register(plugin() if inspect.isclass(plugin) else plugin, name)
            except (Exception, SystemExit) as error:
                if self.strict:
                    raise PluginError(f"hooks of {name!r} cannot be used: {error}") from error
                LOG.warning("hooks of %s are left out: %s: %s", name, type(error).__name__, error)

    def _call(self, hook: str, arguments: Mapping[str, Any]) -> None:
        # One by one, not by pluggy's own call, which ends at the first that raises.
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            try:
                implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as error:
                if self.strict:
                    raise
                name = implementation.plugin_name
                said = f"{type(error).__name__}: {error}"
                LOG.warning("hooks of %s are disabled: %s raised %s", name, hook, said, exc_info=error)
                self._manager.unregister(implementation.plugin)


class _Calls:
    """The hooks as methods."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def __getattr__(self, hook: str) -> Callable[..., None]:
        if not hasattr(HookSpecs, hook):
            raise AttributeError(f"no hook {hook!r}")
        return lambda **arguments: self._hooks._call(hook, arguments)
