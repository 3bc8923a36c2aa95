"""Train, evaluate and run one vision model for several tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtframe.assembly import assemble as assemble
    from mtframe.inference import load_run as load_run
    from mtframe.recipe import Recipe as Recipe
    from mtframe.recipe import load_recipe as load_recipe
    from mtframe.training import Trainer as Trainer
    from mtframe.training import add_task as add_task
    from mtframe.training import remove_task as remove_task

__version__ = "0.1.0"

_HOME = {
    "Recipe": "recipe",
    "Trainer": "training",
    "add_task": "training",
    "assemble": "assembly",
    "load_recipe": "recipe",
    "load_run": "inference",
    "remove_task": "training",
}

_MODULES = ("assembly", "data", "errors", "evaluation", "hooks", "inference", "kinds", "model", "options", "recipe",
            "registry", "run", "training")  # fmt: skip

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that the command line imports torch only where it is needed.
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
