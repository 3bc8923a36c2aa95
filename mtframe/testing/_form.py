"""Whether labels and predictions have the form that their kind of target documents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtframe.kinds import ChecksForm, Target

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
