"""The small networks of an introductory article on multi-task learning: the worked example of a plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._backbone import SharedNetwork as SharedNetwork
    from ._detector import DetectorLoss as DetectorLoss
    from ._detector import GridDetector as GridDetector
    from ._face import FaceClassifier as FaceClassifier
    from ._face import FaceLoss as FaceLoss

_HOME = {
    "DetectorLoss": "_detector",
    "FaceClassifier": "_face",
    "FaceLoss": "_face",
    "GridDetector": "_detector",
    "SharedNetwork": "_backbone",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that reading `mtframe_tutorial.tasks` for a recipe does not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
