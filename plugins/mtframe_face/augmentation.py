"""What transforms of faces share: how a face is moved and how its light is changed, a batch at a time."""

# Shapes: B images, S side of the input in pixels.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from mtframe.errors import RecipeError

# The part of a thing that a moved crop must leave for it to count.
MIN_VISIBLE = 0.2

# Rec. 601 luma, what a grey picture is made of.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Moves:
    """How far faces are moved in training.

    Attributes:
        flip: Probability of mirroring.
        rotate: Largest turn to either side in degrees.
        scale: Largest relative change of what is seen.
        shift: Largest shift, in sides of the input, along each axis.

    Raises:
        RecipeError: One is out of its range.
    """

    flip: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        check_range("flip", self.flip, 0, 1)
        check_range("rotate", self.rotate, 0, 180)
        check_range("scale", self.scale, 0, 0.95)
        check_range("shift", self.shift, 0, 0.95)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Turns in radians (B,), scales (B,), -1 (mirrored) or 1 (B,), and shifts in sides of the input (B, 2)."""
        angle = np.radians(rng.uniform(-self.rotate, self.rotate, count))
        zoom = rng.uniform(1 - self.scale, 1 + self.scale, count)
        mirror = np.where(rng.random(count) < self.flip, -1.0, 1.0)
        return angle, zoom, mirror, rng.uniform(-self.shift, self.shift, (count, 2))


@dataclass(frozen=True, slots=True)
class Light:
    """How light is changed in training, and how much is covered.

    Attributes:
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast, about the picture's mean.
        saturation: Largest relative change of colourfulness.
        erase: Probability of covering a random rectangle, 2 to 20 % of the input, with its mean colour.

    Raises:
        RecipeError: One is out of its range.
    """

    brightness: float
    contrast: float
    saturation: float
    erase: float

    def __post_init__(self) -> None:
        check_range("brightness", self.brightness, 0, 0.95)
        check_range("contrast", self.contrast, 0, 0.95)
        check_range("saturation", self.saturation, 0, 0.95)
        check_range("erase", self.erase, 0, 1)

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Changes float images (B, 3, S, S) of 0..255 and returns them; values may end a little outside."""
        count = len(images)

        def factor(strength: float) -> Tensor:
            return torch.from_numpy(rng.uniform(1 - strength, 1 + strength, (count, 1, 1, 1))).float()

        brightness, contrast, saturation = (
            factor(strength) for strength in (self.brightness, self.contrast, self.saturation)
        )
        grey = sum(weight * plane for weight, plane in zip(_LUMA, images.split(1, dim=1), strict=True))
        assert isinstance(grey, Tensor)
        mean = grey.mean((2, 3), keepdim=True)
        # b (m + c (g + s (x - g) - m)), multiplied out so that each pixel is touched as seldom as can be.
        images.mul_(brightness * contrast * saturation)
        images.add_(brightness * (contrast * (1 - saturation) * grey + (1 - contrast) * mean))
        if self.erase:
            covered = self._rectangles(count, images.shape[-1], rng)
            images = torch.where(covered, images.mean((2, 3), keepdim=True), images)
        return images

    def _rectangles(self, count: int, size: int, rng: np.random.Generator) -> Tensor:
        """(B, 1, S, S) bool."""
        area = rng.uniform(0.02, 0.2, (count, 1)) * (rng.random((count, 1)) < self.erase)
        aspect = np.exp(rng.uniform(-1, 1, (count, 1)) * math.log(2))
        place = (np.arange(size) + 0.5) / size
        along = []
        for extent in (np.sqrt(area * aspect), np.sqrt(area / aspect)):
            start = rng.random((count, 1)) * (1 - extent)
            along.append(torch.from_numpy((place >= start) & (place < start + extent)))
        return (along[0][:, :, None] & along[1][:, None, :])[:, None]


def square(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) resized to (B, 3, side, side), antialiased."""
    return resize(images.contiguous(), [side, side], antialias=True)


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raises RecipeError if an option is not within its limits."""
    if not least <= value <= most:
        raise RecipeError(f"{name}: must be {least:g} to {most:g}, got {value:g}")
