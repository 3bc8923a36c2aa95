"""Tasks whose relation is known: an original, its duplicate, an unrelated one and an adversarial one.

Heads read one channel of the last map and have no weights, so that tasks can only be learned in what they share: two
that read one channel and want the same agree, two that read it and want opposite numbers cannot both be learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtframe.data import DataInfo, Inputs, Placement, Sample
from mtframe.kinds import FeatureSpec
from mtframe.yaml import parse_yaml

HERE = Path(__file__).resolve()


class Trunk(nn.Module):
    """Three stages of a convolution each; the last one is linear. `norm: batch` normalises all tasks together."""

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    stages = (("first",), ("second",), ("third",))

    def __init__(self, *, width: int = 16, norm: str = "group") -> None:
        super().__init__()
        norms = {"group": lambda: nn.GroupNorm(2, width), "batch": lambda: nn.BatchNorm2d(width)}
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), norms[norm](), nn.GELU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), norms[norm](), nn.GELU(), nn.Dropout(0.1))
        self.third = nn.Conv2d(width, width, 1)
        self.features = (FeatureSpec("third", width, 4),)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.third(self.second(self.first(images)))]


class Slopes:
    """Noise that is lighter on one side by a number from -1 to 1; to be told is `sign` times that, or noise for 0."""

    target = "value"
    splits = ("train", "val")

    def __init__(self, split: str, *, sign: int = 1, seed: int = 0, count: int = 400) -> None:
        self.info = DataInfo("value", ("slope",))
        self.sign, self.seed, self.count = sign, seed + (split == "val"), count
        self.decode_size = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        slope = rng.uniform(-1, 1)
        pixels = 127 + 70 * slope * np.linspace(-1, 1, 16) + rng.normal(0, 20, (3, 16, 16))
        wanted = self.sign * slope if self.sign else rng.uniform(-1, 1)
        image = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))
        return Sample(image, {"value": torch.tensor([wanted], dtype=torch.float32)}, (16, 16), index, str(index))


class AsTheyAre:
    """Stacks pictures."""

    decode_size = None
    fixed_size = True

    def __init__(self, size: int, train: bool) -> None: ...

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        places = [
            (Placement.scaled(sample.size, sample.size, (1.0, 1.0), sample=number),)
            for number, sample in enumerate(samples)
        ]
        return Inputs(torch.stack([sample.image for sample in samples]), places)


class Channel(nn.Module):
    """The right half of one channel of the last map, less the left one."""

    target = "value"

    def __init__(self, features: Sequence[FeatureSpec], *, channel: int = 0) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        left, right = maps[-1][:, self.channel].mean(1).chunk(2, 1)
        return {"values": (right - left).mean(1, keepdim=True)}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        return [{"values": row} for row in outputs["values"]]


class Square(nn.Module):
    """Mean squared error, and 1 so that it is never near 0."""

    target = "value"

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"square": (outputs["values"].float() - targets["value"]).square().mean() + 1}


class Error:
    """Mean absolute error."""

    target = "value"
    primary = "error"
    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.errors: list[float] = []

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        self.errors += [
            float((p["values"] - s.target["value"]).abs()) for p, s in zip(predictions, samples, strict=True)
        ]

    def merge(self, other: Error) -> None:
        self.errors += other.errors

    def compute(self) -> dict[str, float]:
        return {"error": sum(self.errors) / len(self.errors)}


def constructed(*tasks: str, norm: str = "group", **train: Any) -> dict[str, Any]:
    """The recipe beside this file with some of its tasks, all if none are named, as plain YAML values."""
    text = HERE.with_suffix(".yaml").read_text(encoding="utf-8").replace("./constructed.py", str(HERE))
    plain = parse_yaml(text, HERE.name)
    plain["backbone"]["norm"] = norm
    plain["tasks"] = {task: plain["tasks"][task] for task in tasks or plain["tasks"]}
    plain["train"] |= train
    return plain
