"""What of a run's recipe may change while it is trained, and what would make another experiment of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mtframe.errors import RecipeError, pasted

# By key of a recipe, then and now; None where it was or is not there.
Changes = Mapping[str, tuple[Any, Any]]

# What leaves every step as it was: where and how fast it is computed, what is observed, saved and logged.
_HARMLESS = (
    "train.workers", "train.device", "train.log_every", "train.save_every_steps", "train.evaluate_every",
    "train.gradients_every", "train.max_unreadable", "train.allow", "hooks", "tasks.*.dataset.root",
)  # fmt: skip

# A longer training: steps to come have the learning rate of one that was as long from the start.
LENGTH = ("train.epochs", "train.steps")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """The keys of two recipes, as plain YAML values, whose values differ."""
    old, new = _flat(then), _flat(now)
    keys = dict.fromkeys((*old, *new))
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def others(changes: Changes, recipe: Mapping[str, Any]) -> Changes:
    """The changes that make another experiment: all but those that leave every step as it was, or add steps.

    Args:
        changes: The changes.
        recipe: With them, as plain YAML values.
    """
    steps = changes.get("train.steps", (_steps_of(recipe),) * 2)
    return {
        key: values for key, values in changes.items() if not (_is_harmless(key) or _is_longer(key, *values, *steps))
    }


def _steps_of(recipe: Mapping[str, Any]) -> Any:
    train = recipe.get("train")
    return train.get("steps") if isinstance(train, Mapping) else None


def _is_harmless(key: str) -> bool:
    """Whether a step is the same whatever the value."""
    return any(fnmatchcase(key, pattern) for pattern in _HARMLESS)


def check_changes(changes: Changes, recipe: Mapping[str, Any], run: Path) -> None:
    """Raises RecipeError if a run cannot go on with these changes, which its recipe has by now."""
    if other := others(changes, recipe):
        raise another_experiment(other, run)


def another_experiment(other: Changes, run: Path, also: str = "") -> RecipeError:
    """That a run cannot go on with these changes, and what to do."""
    # JSON is YAML.
    new = " ".join(
        pasted(f"{key}={now if isinstance(now, str) else json.dumps(now)}") for key, (_, now) in other.items()
    )
    return RecipeError(
        f"{run}: would be another experiment with "
        + "; ".join(described(other))
        + f"{also}. Put the recipe back, or begin a new run with this one's weights: mtframe train {pasted(run)}"
        f"/recipe.yaml {new} --from {pasted(run)}"
    )


def _is_longer(key: str, then: Any, now: Any, steps_then: Any, steps_now: Any) -> bool:
    """Whether a change makes a training longer; or counts it in epochs or steps now, so that only the data can tell."""
    if key not in LENGTH or then is None or now is None or (steps_then is None) != (steps_now is None):
        return key in LENGTH
    # Where steps are given, epochs mean nothing.
    return (key == "train.epochs" and steps_now is not None) or bool(now >= then)


def described(changes: Changes) -> list[str]:
    """The changes, for people."""
    return [f"{key} {_shown(now)} (was {_shown(then)})" for key, (then, now) in changes.items()]


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Values by dotted key; a component's name stands at its own key, whether it has options or not."""
    if not isinstance(value, Mapping):
        return {key: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        place = key if name == "name" and key else f"{key}.{name}" if key else str(name)
        flat |= _flat(inner, place)
    return flat


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
