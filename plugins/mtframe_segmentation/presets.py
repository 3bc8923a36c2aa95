"""What semantic segmentation uses where a recipe names nothing. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, ClassVar


class SemanticSegmentation:
    """The class of each pixel, scored by mean IoU."""

    dataset: ClassVar[str] = "semantic-masks"
    # Scales as wide as the field's: there is no box that a large scale would leave without its object.
    transform: ClassVar[str | dict[str, Any]] = {"name": "letterbox", "scale": [0.5, 2.0]}
    head: ClassVar[str | dict[str, Any]] = "semantic-fpn"
    loss: ClassVar[str | dict[str, Any]] = "pixel-cross-entropy"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("mean-iou",)
    size: ClassVar[int] = 320
    batch_size: ClassVar[int] = 16
    flip_test: ClassVar[bool] = False
