"""The article's two tasks as presets: what a recipe leaves out comes from here. Imports no torch."""

from __future__ import annotations

from typing import Any, ClassVar


class TutorialFaces:
    """Whose face is it? Learned as a classification of people, scored on pairs of people never seen."""

    dataset: ClassVar[str] = "lfw"
    transform: ClassVar[str | dict[str, Any]] = "face-crop"
    head: ClassVar[str | dict[str, Any]] = "tutorial-face"
    loss: ClassVar[str | dict[str, Any]] = "tutorial-face"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("face-verification",)
    size: ClassVar[int] = 64
    batch_size: ClassVar[int] = 32
    flip_test: ClassVar[bool] = False


class TutorialObjects:
    """What is where? Boxes of known classes, scored by COCO AP."""

    dataset: ClassVar[str] = "coco"
    transform: ClassVar[str | dict[str, Any]] = "letterbox"
    head: ClassVar[str | dict[str, Any]] = "tutorial-detector"
    loss: ClassVar[str | dict[str, Any]] = "tutorial-detector"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("coco-ap",)
    size: ClassVar[int] = 64
    batch_size: ClassVar[int] = 32
    flip_test: ClassVar[bool] = False
