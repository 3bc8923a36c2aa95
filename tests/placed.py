"""What becomes of labels whose images a transform has made inputs of, without a loader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtframe.data import Inputs, Placement, Sample, Viewer
from mtframe.kinds import Target, Transform


def labelled(
    transform: Transform, target: Target, samples: Sequence[Sample], rng: np.random.Generator | None = None
) -> tuple[Inputs, dict[str, Tensor]]:
    """The inputs that a transform makes of samples, and their labels as a loss gets them."""
    inputs = transform(samples, np.random.default_rng(0) if rng is None else rng)
    return inputs, collated(target, samples, inputs)


def collated(target: Target, samples: Sequence[Sample], inputs: Inputs) -> dict[str, Tensor]:
    """The labels of inputs that were made of these samples."""
    return target.collate(Viewer(target).placed([sample.target for sample in samples], inputs))


def bounds_of(inputs: Inputs) -> Tensor:
    """(B, 4): where each input's own original lies in it, as heads get it."""
    return torch.tensor([placements[0].bounds for placements in inputs.placements])


def placed_at(size: tuple[int, int], scale: float = 1.0, offset: tuple[float, float] = (0.0, 0.0)) -> Placement:
    """An original of this (height, width) in an input that is large enough for it."""
    sides = (round(side * scale + shift) for side, shift in zip(size, reversed(offset), strict=True))
    height, width = sides
    return Placement.scaled(size, (height, width), (scale, scale), offset)
