"""How much of the lines is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import RecipeError

from .lines import along, apart


class LineF1:
    """F1 of the places along lines: those predicted near a line of their class, those of lines near a predicted one.

    Args:
        info: Its `classes`.
        near: Pixels.

    Raises:
        RecipeError: `near` is not above 0.
    """

    target: ClassVar[str] = "polylines"
    primary: ClassVar[str] = "f1"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, info: DataInfo, *, near: float = 4.0) -> None:
        if near <= 0:
            raise RecipeError(f"near: must be above 0, got {near:g}")
        self.near = near
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._seen: dict[int, tuple[int, int, int, int]] = {}

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds predictions; an image of which nothing is known counts for nothing."""
        for prediction, sample in zip(predictions, samples, strict=True):
            if not sample.target["points"].isnan().any():
                right, said = self._near(prediction, sample.target)
                found, wanted = self._near(sample.target, prediction)
                self._seen[sample.index] = right, said, found, wanted

    def _near(self, lines: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> tuple[int, int]:
        """How many places along lines are near others of their class, and how many there are."""
        near = places = 0
        for line, label in zip(lines["points"], lines["labels"], strict=True):
            places += len(along(line))
            alike = [apart(line, other) for other in others["points"][others["labels"] == label]]
            near += int((torch.stack(alike).amin(0) < self.near).sum()) if alike else 0
        return near, places

    def merge(self, other: LineF1) -> None:
        """Takes over what another instance has seen."""
        self._seen.update(other._seen)

    def compute(self) -> dict[str, float]:
        """`f1`, `precision` and `recall`; NaN where there is nothing to be said."""
        if not self._seen:
            return dict.fromkeys(("f1", "precision", "recall"), float("nan"))
        right, said, found, wanted = (sum(counts) for counts in zip(*self._seen.values(), strict=True))
        precision, recall = right / max(1, said), found / max(1, wanted)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        return {"f1": f1, "precision": precision, "recall": recall}
