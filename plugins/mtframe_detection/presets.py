"""What object detection uses where a recipe names nothing. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, ClassVar


class ObjectDetection:
    """Boxes around things of known classes, scored by COCO AP."""

    dataset: ClassVar[str] = "coco"
    transform: ClassVar[str | dict[str, Any]] = "letterbox"
    head: ClassVar[str | dict[str, Any]] = "dense"
    loss: ClassVar[str | dict[str, Any]] = "detection"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("coco-ap",)
    size: ClassVar[int] = 320
    batch_size: ClassVar[int] = 16
    flip_test: ClassVar[bool] = False
