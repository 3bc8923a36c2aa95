"""The smallest components of every kind, for tests of the framework: named `tests/toy.py:ToyHead` in recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtframe.data import DataInfo, Inputs, Placement, Sample
from mtframe.errors import BadImageError
from mtframe.kinds import FeatureSpec


class ToyBackbone(nn.Module):
    """Two strided convolutions with BatchNorm and dropout."""

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    stages = (("stem",), ("body",))

    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1))
        self.features = (FeatureSpec("stem", width, 4), FeatureSpec("body", width, 8))

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.stem(images)
        return [stem, self.body(stem)]


class ToyData:
    """Pictures of one grey each; the class is whether it is light. Item `bad` cannot be read."""

    target = "label"
    splits = ("train", "val")

    def __init__(self, split: str, *, root: Path | None = None, count: int = 20, bad: int | None = None) -> None:
        self.info = DataInfo("label", ("dark", "light"))
        self.count = count
        self.bad = bad
        self.decode_size = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        if index == self.bad:
            raise BadImageError(f"toy/{index}.jpg", "made to be bad")
        grey = int(np.random.default_rng(index).integers(256))
        image = torch.full((3, 16, 16), grey, dtype=torch.uint8)
        return Sample(image, {"label": torch.tensor(int(grey > 127))}, (16, 16), index, f"toy/{index}.jpg")


class ToyTransform:
    """Resizes by repetition and, in training, adds noise."""

    decode_size = None

    def __init__(self, size: int, train: bool, *, fixed: bool = True) -> None:
        self.size, self.train, self.fixed_size = size, train, fixed

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        images = torch.stack([sample.image for sample in samples])
        images = nn.functional.interpolate(images, size=(self.size, self.size))
        if self.train:
            noise = rng.integers(-20, 20, images.shape) + torch.randint(-5, 5, images.shape).numpy()
            images = (images + torch.from_numpy(noise)).clamp(0, 255).to(torch.uint8)
        return Inputs(images, [(self._placement(number, sample),) for number, sample in enumerate(samples)])

    def _placement(self, number: int, sample: Sample) -> Placement:
        height, width = sample.size
        scale = self.size / width, self.size / height
        return Placement.scaled(sample.size, (self.size, self.size), scale, sample=number)


class ToyHead(nn.Module):
    """A linear classifier over the mean of the last map."""

    target = "label"

    def __init__(self, features: Sequence[FeatureSpec], info: DataInfo, *, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(features[-1].channels, len(info.classes), bias=bias)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"logits": self.linear(maps[-1].mean((2, 3)))}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        return [{"probabilities": row} for row in outputs["logits"].float().softmax(1)]


class ToyLoss(nn.Module):
    """Cross-entropy; `explode_after` makes it NaN when so much of training is done."""

    target = "label"

    def __init__(self, *, explode_after: float | None = None) -> None:
        super().__init__()
        self.explode_after = explode_after
        self.progress = 0.0

    def set_progress(self, fraction: float) -> None:
        self.progress = fraction

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        loss = nn.functional.cross_entropy(outputs["logits"].float(), targets["label"])
        if self.explode_after is not None and self.progress >= self.explode_after:
            loss = loss * torch.nan
        return {"cross_entropy": loss}


class ToyMetric:
    """Accuracy."""

    target = "label"
    primary = "accuracy"
    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right = self.seen = 0

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        for prediction, sample in zip(predictions, samples, strict=True):
            self.right += int(prediction["probabilities"].argmax() == sample.target["label"])
            self.seen += 1

    def merge(self, other: ToyMetric) -> None:
        self.right += other.right
        self.seen += other.seen

    def compute(self) -> dict[str, float]:
        return {"accuracy": self.right / max(1, self.seen)}


def toy_recipe(tasks: Mapping[str, Mapping[str, Any]] | None = None, **train: Any) -> dict[str, Any]:
    """A whole recipe of these parts, as plain YAML values; `train` overrides its section."""
    here = str(Path(__file__).resolve())
    part = {
        "dataset": f"{here}:ToyData",
        "transform": f"{here}:ToyTransform",
        "head": f"{here}:ToyHead",
        "loss": f"{here}:ToyLoss",
        "metrics": [f"{here}:ToyMetric"],
        "size": 32,
        "batch_size": 4,
    }
    tasks = tasks or {"one": {}, "two": {"dataset": {"name": f"{here}:ToyData", "count": 30}}}
    return {
        "backbone": f"{here}:ToyBackbone",
        "tasks": {name: {**part, **change} for name, change in tasks.items()},
        "train": {
            "steps": 12,
            "workers": 0,
            "device": "cpu",
            "log_every": 1,
            "precision": "fp32",
            "evaluate_every": None,
            **train,
        },
    }
