"""Face recognition: identities in LFW's layout, an embedding head, margin losses, the LFW protocol."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._adaface import AdaFaceLoss as AdaFaceLoss
    from ._align import FaceAlign as FaceAlign
    from ._folders import IdentityFolders as IdentityFolders
    from ._head import EmbeddingHead as EmbeddingHead
    from ._identification import FaceIdentification as FaceIdentification
    from ._identities import Roles as Roles
    from ._insightface import InsightFace as InsightFace
    from ._lfw import LFW as LFW
    from ._margins import ArcFaceLoss as ArcFaceLoss
    from ._margins import CosFaceLoss as CosFaceLoss
    from ._metric import FaceVerification as FaceVerification
    from ._pairs import Pairs as Pairs
    from ._softmax import SoftmaxLoss as SoftmaxLoss
    from ._transform import FaceCrop as FaceCrop
    from ._triplet import TripletLoss as TripletLoss

_HOME = {
    "AdaFaceLoss": "_adaface",
    "ArcFaceLoss": "_margins",
    "CosFaceLoss": "_margins",
    "EmbeddingHead": "_head",
    "FaceAlign": "_align",
    "FaceCrop": "_transform",
    "FaceIdentification": "_identification",
    "FaceVerification": "_metric",
    "IdentityFolders": "_folders",
    "InsightFace": "_insightface",
    "LFW": "_lfw",
    "Pairs": "_pairs",
    "Roles": "_identities",
    "SoftmaxLoss": "_softmax",
    "TripletLoss": "_triplet",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that reading `mtframe_face.tasks` for a recipe does not import torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
