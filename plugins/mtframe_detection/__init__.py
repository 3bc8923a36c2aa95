"""Object detection: readers of COCO, YOLO and VOC, dense and R-FCN heads, losses, letterbox augmentation, COCO AP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._coco import Coco as Coco
    from ._head import DenseHead as DenseHead
    from ._loss import CrossEntropyIoULoss as CrossEntropyIoULoss
    from ._loss import DetectionLoss as DetectionLoss
    from ._metric import CocoAP as CocoAP
    from ._rfcn import RFCNHead as RFCNHead
    from ._transform import Letterbox as Letterbox
    from ._voc import Voc as Voc
    from ._yolo import Yolo as Yolo

_HOME = {
    "Coco": "_coco",
    "CocoAP": "_metric",
    "CrossEntropyIoULoss": "_loss",
    "DenseHead": "_head",
    "DetectionLoss": "_loss",
    "Letterbox": "_transform",
    "RFCNHead": "_rfcn",
    "Voc": "_voc",
    "Yolo": "_yolo",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that reading `mtframe_detection.tasks` for a recipe does not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
