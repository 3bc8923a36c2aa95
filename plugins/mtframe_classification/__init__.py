"""Image classification: folders and csv files, one label, several or numbers, their heads, losses and metrics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._csv import CsvImages as CsvImages
    from ._folder import ImageFolder as ImageFolder
    from ._heads import Classifier as Classifier
    from ._heads import Regressor as Regressor
    from ._losses import BinaryCrossEntropy as BinaryCrossEntropy
    from ._losses import CrossEntropy as CrossEntropy
    from ._losses import RegressionLoss as RegressionLoss
    from ._metrics import Classification as Classification
    from ._metrics import MultiLabel as MultiLabel
    from ._metrics import Regression as Regression
    from ._transform import ImageCrop as ImageCrop

_HOME = {
    "BinaryCrossEntropy": "_losses",
    "Classification": "_metrics",
    "Classifier": "_heads",
    "CrossEntropy": "_losses",
    "CsvImages": "_csv",
    "ImageCrop": "_transform",
    "ImageFolder": "_folder",
    "MultiLabel": "_metrics",
    "Regression": "_metrics",
    "RegressionLoss": "_losses",
    "Regressor": "_heads",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that reading `mtframe_classification.tasks` for a recipe does not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
