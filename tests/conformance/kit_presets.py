"""Presets that keep their contract, or break one part of it; no torch."""

from __future__ import annotations


class GoodPreset:
    """Keeps its contract."""

    dataset = "image-folder"
    transform = "image-crop"
    head = "classifier"
    loss = "cross-entropy"
    metrics = ("classification",)
    size = 64
    batch_size = 4


class Sizeless:
    """Does not say how large images are."""

    dataset = "image-folder"
    transform = "image-crop"
    head = "classifier"
    loss = "cross-entropy"
    metrics = ("classification",)
    batch_size = 4


class NumberedData(GoodPreset):
    """Names its data set by a number."""

    dataset = 5


class NamelessHead(GoodPreset):
    """Gives a part options and no name."""

    head = {"dropout": 0.1}  # noqa: RUF012


class OneMetric(GoodPreset):
    """Names a metric, and not several."""

    metrics = "classification"


class NoSuchHead(GoodPreset):
    """Names what nobody offers."""

    head = "classifer"


class OtherTarget(GoodPreset):
    """Scores boxes where there are labels."""

    metrics = ("coco-ap",)
