"""What classification and regression use where a recipe names nothing. Imports no torch."""

from __future__ import annotations

from typing import Any, ClassVar


class ImageClassification:
    """Says which of several classes a picture belongs to; one folder for each."""

    dataset: ClassVar[str] = "image-folder"
    transform: ClassVar[str | dict[str, Any]] = "image-crop"
    head: ClassVar[str | dict[str, Any]] = "classifier"
    loss: ClassVar[str | dict[str, Any]] = {"name": "cross-entropy", "label_smoothing": 0.1}
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("classification",)
    size: ClassVar[int] = 160
    batch_size: ClassVar[int] = 64
    flip_test: ClassVar[bool] = False


class SceneRecognition:
    """Says what kind of place a picture shows, with crops that leave most of the place's layout in it."""

    dataset: ClassVar[str] = "image-folder"
    # A scene is told by how it is laid out as a whole (Oliva and Torralba, IJCV 42, 2001): a third of a picture of
    # a beach may be sand or sky alone, which is no beach.
    transform: ClassVar[str | dict[str, Any]] = {"name": "image-crop", "scale": [0.6, 1.0], "crop": 1.0}
    head: ClassVar[str | dict[str, Any]] = "classifier"
    loss: ClassVar[str | dict[str, Any]] = {"name": "cross-entropy", "label_smoothing": 0.1}
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("classification",)
    size: ClassVar[int] = 224
    batch_size: ClassVar[int] = 32
    flip_test: ClassVar[bool] = True


class MultiLabelClassification:
    """Says which of several things apply to a picture, any number of them; from a csv file."""

    dataset: ClassVar[str] = "csv"
    # An attribute may be in a corner, and what is cut off is still labelled.
    transform: ClassVar[str | dict[str, Any]] = {"name": "image-crop", "scale": [0.6, 1.0], "crop": 1.0}
    head: ClassVar[str | dict[str, Any]] = "classifier"
    loss: ClassVar[str | dict[str, Any]] = "binary-cross-entropy"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("multi-label",)
    size: ClassVar[int] = 160
    batch_size: ClassVar[int] = 64
    flip_test: ClassVar[bool] = False


class Regression:
    """Predicts one number or several from a picture; from a csv file."""

    dataset: ClassVar[str] = "csv"
    # Nothing that changes places, sizes or angles: the numbers would no longer be true of what is seen.
    transform: ClassVar[str | dict[str, Any]] = {
        "name": "image-crop",
        "scale": [1.0, 1.0],
        "ratio": [1.0, 1.0],
        "flip": 0.0,
        "crop": 1.0,
    }
    head: ClassVar[str | dict[str, Any]] = "regressor"
    loss: ClassVar[str | dict[str, Any]] = "regression"
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("regression",)
    size: ClassVar[int] = 160
    batch_size: ClassVar[int] = 64
    flip_test: ClassVar[bool] = False
