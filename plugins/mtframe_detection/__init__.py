"""Object detection: COCO reader, dense anchor-free head, its loss, letterbox augmentation and COCO AP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._coco import Coco as Coco
    from ._head import DenseHead as DenseHead
    from ._loss import DetectionLoss as DetectionLoss
    from ._metric import CocoAP as CocoAP
    from ._transform import Letterbox as Letterbox

_HOMES = {
    "Coco": "_coco",
    "CocoAP": "_metric",
    "DenseHead": "_head",
    "DetectionLoss": "_loss",
    "Letterbox": "_transform",
}

__all__ = ["Coco", "CocoAP", "DenseHead", "DetectionLoss", "Letterbox"]


def __getattr__(name: str) -> Any:
    # Lazy, so that a recipe that names the preset (`mtframe_detection.tasks`) is read without loading torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
