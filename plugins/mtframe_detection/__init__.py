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

_HOME = {
    "Coco": "_coco",
    "CocoAP": "_metric",
    "DenseHead": "_head",
    "DetectionLoss": "_loss",
    "Letterbox": "_transform",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that reading `mtframe_detection.tasks` for a recipe does not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
