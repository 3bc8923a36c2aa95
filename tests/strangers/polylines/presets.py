"""What a task uses where the recipe names nothing. Imports no torch."""

from __future__ import annotations

from typing import Any, ClassVar


class LaneDetection:
    """Lines on roads."""

    dataset: ClassVar[str] = "lanes"
    transform: ClassVar[str | dict[str, Any]] = "letterbox"
    head: ClassVar[str | dict[str, Any]] = "lines"
    loss: ClassVar[str | dict[str, Any]] = "lines"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("line-f1",)
    size: ClassVar[int] = 64
    batch_size: ClassVar[int] = 8
    flip_test: ClassVar[bool] = True
