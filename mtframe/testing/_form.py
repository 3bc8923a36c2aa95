"""Whether labels and predictions have the form that their kind of target documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtframe.kinds import ChecksForm, Finding, Target

from ._violation import Violation, expect


def check_label(of: str, target: Target, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
    """Raises Violation unless a kind of target that checks labels takes this one, of an original of (height, width)."""
    if isinstance(target, ChecksForm):
        try:
            target.check_label(label, size)
        except ValueError as error:
            raise Violation(f"{of}: {error}") from error


def check_prediction(of: str, target: Target, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
    """Raises Violation unless a prediction is finite, and such as a kind of target that checks predictions takes."""
    check_finite(of, prediction)
    if isinstance(target, ChecksForm):
        try:
            target.check_prediction(prediction, size)
        except ValueError as error:
            raise Violation(f"{of}: {error}") from error


def check_finite(of: str, prediction: Mapping[str, Tensor]) -> None:
    """Raises Violation unless a prediction is of tensors of finite numbers."""
    expect(isinstance(prediction, Mapping), f"{of}: expected tensors by name, got {type(prediction).__name__}")
    for name, value in prediction.items():
        expect(isinstance(value, Tensor), f"{of}: expected {name!r} to be a tensor, got {type(value).__name__}")
        strange = int((~value.isfinite()).sum()) if value.is_floating_point() else 0
        expect(not strange, f"{of}: expected finite numbers, but {strange} of {value.numel()} in {name!r} are not")


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float = 0.0) -> bool:
    """Whether two labels or predictions are the same: numbers up to a tolerance, things in any order."""
    if same_in_order(one, other, tolerance):
        return True
    if set(one) != set(other) or any(one[name].shape != other[name].shape for name in one):
        return False
    lengths = {len(value) if value.ndim else 0 for value in one.values()}
    return len(lengths) == 1 and _paired(_rows(one), _rows(other), tolerance)


def same_in_order(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float) -> bool:
    """The same, things in the same order: probabilities of classes are no things."""
    return set(one) == set(other) and all(
        one[name].shape == other[name].shape and bool(_near(one[name], other[name], tolerance).all()) for name in one
    )


def _near(one: Tensor, other: Tensor, tolerance: float) -> Tensor:
    return torch.isclose(one.double(), other.double(), rtol=0, atol=tolerance, equal_nan=True)


def _rows(things: Mapping[str, Tensor]) -> Tensor:
    """(N, D): all that is said of each of N things."""
    return torch.cat([things[name].double().reshape(len(things[name]), -1) for name in sorted(things)], dim=1)


def _paired(rows: Tensor, others: Tensor, tolerance: float) -> bool:
    """Whether each row has one of the others to itself that is the same."""
    left = list(others)
    for row in rows:
        found = next((place for place, other in enumerate(left) if _near(row, other, tolerance).all()), None)
        if found is None:
            return False
        del left[found]
    return True


def check_findings(of: str, names: Any, found: Any) -> None:
    """Raises Violation unless all are findings of names that are declared.

    Args:
        of: Whose they are, for messages.
        names: The component's `findings`.
        found: What it has found.
    """
    named = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    expect(named, f"{of}: expected its findings to be a tuple of names, got {names!r}")
    for one in found:
        expect(isinstance(one, Finding), f"{of}: expected a mtframe.kinds.Finding, got {one!r}")
        expect(one.name in names, f"{of}: it finds {one.name!r}, which is not among its findings {names!r}")
        right = one.severity in ("note", "warning", "error")
        expect(right, f"{of}: {one.name}: expected note, warning or error, got {one.severity!r}")
