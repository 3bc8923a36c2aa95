"""Checks of presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtframe.errors import RecipeError
from mtframe.recipe import Recipe
from mtframe.registry import resolve

from ._check import checks, passes_first
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

_SLOTS = ("dataset", "transform", "head", "loss")


def make(subject: Subject) -> Any:
    """The preset: a class whose attributes are read, and never built."""
    return subject.cls


def imports_no_torch(subject: Subject) -> None:
    """Its module imports no torch, so that reading a recipe stays fast."""
    found = subject.kit.probe(subject.component)
    if found.error is not None:
        raise Skip("it cannot be imported; see the check imports-silently")
    problem = f"importing {found.value} imports torch ({found.seconds:.1f} s)"
    expect(not found.torch, f"{problem}; give presets a module of their own")


def fills_a_recipe(subject: Subject) -> None:
    """A recipe that names it needs nothing else of the task but where its data is."""
    for slot in _SLOTS:
        part = getattr(subject.cls, slot, None)
        expect(part is None or _name(part), f"{slot}: expected a component's name, or {{'name': ...}}, got {part!r}")
    metrics = getattr(subject.cls, "metrics", ())
    right = isinstance(metrics, list | tuple) and all(map(_name, metrics))
    expect(right, f"metrics: expected components' names in a tuple, got {metrics!r}")
    _recipe(subject)


def names_resolve(subject: Subject) -> None:
    """Every part that it names is there, takes its options, and speaks the same kind of target as the others."""
    passes_first(fills_a_recipe, subject)
    _recipe(subject).check()


def _recipe(subject: Subject) -> Recipe:
    names = {slot: _name(getattr(subject.cls, slot, None)) for slot in _SLOTS}
    data = {"name": names["dataset"], **_data_options(subject, names["dataset"])} if names["dataset"] else {}
    task = {"preset": subject.component.qualified, **({"dataset": data} if data else {})}
    # No backbone is built: any that is installed will do.
    return Recipe.from_plain({"backbone": "tutorial@mtframe", "tasks": {"checked": task}})


def _data_options(subject: Subject, dataset: str) -> dict[str, Any]:
    """What a recipe must say of the preset's data set, as far as the preset does not."""
    from mtframe.options import describe

    given = subject.kit.options.get(f"dataset:{dataset.partition('@')[0]}")
    if given is not None:
        return dict(given)
    try:
        component = resolve("dataset", dataset).component
    except RecipeError:
        # That it is not there is said by another check.
        return {}
    required = [option.name for option in describe(component, "dataset") if option.default is None]
    if unknown := [name for name in required if name != "root"]:
        raise Skip(f"data set {dataset!r} needs {', '.join(unknown)}: pass options={{'dataset:{dataset}': ...}}")
    return {"root": "data"} if required else {}


def _name(part: Any) -> str:
    """Of a component that a preset names; empty where it names none, or something else than a name."""
    named = part.get("name") if isinstance(part, dict) else part
    return named if isinstance(named, str) else ""


CHECKS = checks(fills_a_recipe, names_resolve) + checks(imports_no_torch, early=True)
