"""Samples to square batches: letterbox, and in training scale, crop, mirror, mosaic and colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mtframe.data import DecodeSize, Inputs, Placement, Sample, to_uint8
from mtframe.errors import RecipeError

# Grey of the padding, near the mean of photographs.
_GREY = 114

# Of the random scale: an image's memory grows with its square. The limit of `test_scales` is the same.
_MOST_SCALE = 8

# Of red, green and blue (ITU-R BT.601), as transforms.v2 has them.
_GREY_WEIGHTS = (0.2989, 0.587, 0.114)


class Letterbox:
    """Fits each image, its proportions kept, into a square; the rest is grey.

    In training the image is also scaled at random, cut or moved where it is then larger or smaller than the
    square, mirrored, varied in colour, and with some probability made a mosaic of four images of the batch. Of each
    of the four a part is shown, at the scale that it would have alone: objects keep the size that they are looked for
    at. Nothing is known of what is left of an object that was cut to a sliver.

    Args:
        size: Pixels of the square.
        train: Whether to augment.
        flip: Probability of mirroring.
        scale: Range of the random scale against a plain fit, at most 8, drawn evenly in logarithm.
        mosaic: Probability of a mosaic.
        close_mosaic: Share of the training, at its end, that has no mosaics: pictures in four parts are none that a
            model meets later (YOLOX, arXiv:2107.08430, 2.2).
        brightness: Largest relative change: the factor is drawn from 1 ± this.
        contrast: The same for contrast.
        saturation: The same for saturation.
        sizes: Multi-scale training: the square's size is drawn from these for each batch. Multiples of 32.
        min_visible: Part of an object's area that must be left for it to be a target.

    Raises:
        RecipeError: An option is out of its range.
    """

    def __init__(
        self,
        size: int,
        train: bool,
        *,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.7, 1.5),
        mosaic: float = 0.0,
        close_mosaic: float = 0.15,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.3,
        sizes: tuple[int, ...] | None = None,
        min_visible: float = 0.2,
    ) -> None:
        for name, value in (
            ("flip", flip), ("mosaic", mosaic), ("close_mosaic", close_mosaic), ("min_visible", min_visible),
            ("brightness", brightness), ("contrast", contrast), ("saturation", saturation),
        ):  # fmt: skip
            if not 0 <= value <= 1:
                raise RecipeError(f"letterbox: {name} must be within 0..1, got {value}")
        if not 0 < scale[0] <= scale[1] <= _MOST_SCALE:
            raise RecipeError(
                f"letterbox: scale must be a rising range above 0 and up to {_MOST_SCALE}, as in [0.7, 1.5], "
                f"got {list(scale)}"
            )
        if sizes is not None and (not sizes or any(side < 32 or side % 32 for side in sizes)):
            raise RecipeError(f"letterbox: sizes must be multiples of 32, got {list(sizes)}")
        self.size, self.train = size, train
        # Without augmentation all options are idle.
        self.evaluates_as = ()
        self.flip, self.scale, self.mosaic, self.min_visible = flip, scale, mosaic, min_visible
        self.close_mosaic, self.closed = close_mosaic, close_mosaic == 1
        self.sizes = tuple(sizes) if sizes and train else (size,)
        self.fixed_size = len(set(self.sizes)) == 1
        self.mixes = train and mosaic > 0
        # Images magnified at random may be blurred by up to the root of the largest factor: what is decoded
        # at half its size is resized faster too.
        zoom = math.sqrt(max(scale[1], 1.0)) if train else 1.0
        self.decode_size: DecodeSize | None = DecodeSize(longer=math.floor(max(self.sizes) * zoom))
        self.colour = np.array([brightness, contrast, saturation])

    def set_progress(self, fraction: float) -> None:
        """How much of the training is done, from 0 to below 1; the start, where nobody says."""
        self.closed = fraction >= 1 - self.close_mosaic

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        """Images of any sizes to (B, 3, side, side) uint8."""
        side = int(rng.choice(self.sizes)) if self.train else self.size
        images = torch.full((len(samples), 3, side, side), _GREY, dtype=torch.uint8)
        placements = []
        for number in range(len(samples)):
            parts = self._compose(number, samples, side, rng)
            factors = self._factors(rng)
            for part in parts:
                _draw(images[number], samples[part.sample].image, part, factors)
            if self.train and rng.random() < self.flip:
                images[number] = functional.horizontal_flip(images[number])
                parts = [part.flipped() for part in parts]
            placements.append(tuple(parts))
        return Inputs(images, placements)

    def placement_of(self, size: tuple[int, int]) -> Placement:
        """Where an image of (height, width) lies without augmentation."""
        alone = [Sample(torch.empty(0, dtype=torch.uint8), {}, size)]
        return _fit(alone, 0, self.size, (0, 0, self.size, self.size), 1.0, 0.5, 0.5)

    def _compose(self, number: int, samples: Sequence[Sample], side: int, rng: np.random.Generator) -> list[Placement]:
        """What is drawn where: the image itself, or it and three others around a random corner."""
        whole = (0, 0, side, side)
        if not self.train:
            return [_fit(samples, number, side, whole, 1.0, 0.5, 0.5)]
        if rng.random() >= self.mosaic or self.closed:
            return [self._random_fit(samples, number, side, whole, rng)]
        x, y = (int(value) for value in rng.uniform(0.3, 0.7, 2) * side)
        windows = [(0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side)]
        # Of a batch of fewer than four, some come twice.
        others = rng.permutation([other for other in range(len(samples)) if other != number] or [number])
        chosen = [number, *np.resize(others, 3).tolist()]
        return [
            self._random_fit(samples, sample, side, window, rng)
            for sample, window in zip(chosen, rng.permutation(windows).tolist(), strict=True)
        ]

    def _factors(self, rng: np.random.Generator) -> list[float] | None:
        """Of brightness, contrast and saturation; None where nothing is varied."""
        if not self.train or not self.colour.any():
            return None
        return rng.uniform(1 - self.colour, 1 + self.colour).tolist()

    def _random_fit(
        self, samples: Sequence[Sample], sample: int, side: int, window: Sequence[int], rng: np.random.Generator
    ) -> Placement:
        zoom = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        placement = _fit(samples, sample, side, window, zoom, rng.random(), rng.random())
        return replace(placement, min_visible=self.min_visible)


def _fit(
    samples: Sequence[Sample], sample: int, side: int, window: Sequence[int], zoom: float, right: float, down: float
) -> Placement:
    """Scales an image to `zoom` times what fits the square; `right` and `down` place it in a window of it, 0..1.

    Along each side, a larger image covers the window and is cut; a smaller one lies in it whole.
    """
    x1, y1, x2, y2 = window
    size = samples[sample].size
    factor = zoom * side / max(size)
    height, width = (max(1, round(length * factor)) for length in size)
    offset = x1 + round((x2 - x1 - width) * right), y1 + round((y2 - y1 - height) * down)
    scale = width / size[1], height / size[0]
    placement = Placement.scaled(size, (side, side), scale, offset, sample=sample)
    return replace(placement, window=(float(x1), float(y1), float(x2), float(y2)))


def _draw(canvas: Tensor, image: Tensor, placement: Placement, factors: Sequence[float] | None) -> None:
    """Resizes an image and copies what its window shows of it, in varied colours."""
    # Whole pixels, but for what floating point makes of them.
    x1, y1, x2, y2 = (round(side) for side in placement.bounds)
    image = functional.resize(image, [y2 - y1, x2 - x1], antialias=True)
    left, top, right, bottom = (round(side) for side in placement.seen)
    left, top, right, bottom = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
    # By numpy: images are decoded pixel by pixel, and torch takes twice as long to make planes of them.
    part = np.ascontiguousarray(image[:, top - y1 : bottom - y1, left - x1 : right - x1].numpy())
    shown = torch.from_numpy(part)
    canvas[:, top:bottom, left:right] = shown if factors is None else vary_colour(shown, *factors)


def vary_colour(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """What transforms.v2's adjust_brightness, adjust_contrast and adjust_saturation do, in one pass.

    All three are linear in the pixel, so together they are one 3 x 3 matrix and an offset: twice as fast, and
    rounded and clipped once.

    Args:
        image: (3, H, W) uint8, RGB.
        brightness: Factor; 1 changes nothing. So for the others.
        contrast: Distance from the image's mean grey.
        saturation: Distance from the pixel's own grey.

    Returns:
        (3, H, W) uint8.
    """
    pixels = image.flatten(1).float()
    grey = torch.tensor(_GREY_WEIGHTS)
    mix = saturation * torch.eye(3) + (1 - saturation) * grey.expand(3, 3)
    offset = (1 - contrast) * brightness * (grey @ pixels.mean(dim=1))
    varied = torch.addmm(offset.expand(3, 1), mix * (brightness * contrast), pixels)
    return to_uint8(varied).view_as(image)
