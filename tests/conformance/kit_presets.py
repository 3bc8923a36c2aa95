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


class NoSuchHead(GoodPreset):
    """Names what nobody offers."""

    head = "classifer"


class OtherTarget(GoodPreset):
    """Scores boxes where there are labels."""

    metrics = ("coco-ap",)
