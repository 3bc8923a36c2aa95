"""What a face recognition task uses where the recipe names nothing. Imports no torch."""

from __future__ import annotations

from typing import Any, ClassVar


class FaceRecognition:
    """Learns who is who, and is scored on pairs of people it has never seen (LFW verification)."""

    dataset: ClassVar[str] = "lfw"
    transform: ClassVar[str | dict[str, Any]] = "face-crop"
    head: ClassVar[str | dict[str, Any]] = "embedding"
    loss: ClassVar[str | dict[str, Any]] = "cosface"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("face-verification",)
    size: ClassVar[int] = 112
    batch_size: ClassVar[int] = 64
    flip_test: ClassVar[bool] = True


class FaceIdentification:
    """Learns who is who from folders of pictures, and is scored on finding people it has never seen in a gallery."""

    dataset: ClassVar[str] = "identity-folders"
    transform: ClassVar[str | dict[str, Any]] = "face-align"
    head: ClassVar[str | dict[str, Any]] = "embedding"
    loss: ClassVar[str | dict[str, Any]] = "cosface"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("face-identification", "face-verification")
    size: ClassVar[int] = 112
    batch_size: ClassVar[int] = 64
    flip_test: ClassVar[bool] = True
