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


def others(changes: Changes) -> Changes:
    """The changes that make another experiment: all but those that leave every step as it was, or add steps."""
    return {key: values for key, values in changes.items() if not (_is_harmless(key) or _is_longer(key, *values))}


def _is_harmless(key: str) -> bool:
    """Whether a step is the same whatever the value."""
    return any(fnmatchcase(key, pattern) for pattern in _HARMLESS)


def check_changes(changes: Changes, run: Path) -> None:
    """Raises RecipeError if a run cannot go on with these changes."""
    if not (other := others(changes)):
        return
    # JSON is YAML.
    new = " ".join(
        pasted(f"{key}={now if isinstance(now, str) else json.dumps(now)}") for key, (_, now) in other.items()
    )
    raise RecipeError(
        f"{run}: would be another experiment with "
        + "; ".join(described(other))
        + f". Put the recipe back, or begin a new run with this one's weights: mtframe train {pasted(run)}"
        f"/recipe.yaml {new} --from {pasted(run)}"
    )


def _is_longer(key: str, then: Any, now: Any) -> bool:
    """Whether a change makes a training longer, or counts it otherwise."""
    return key in LENGTH and (then is None or now is None or now >= then)


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
