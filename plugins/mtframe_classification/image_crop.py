"""Random crops of whole pictures, mirrored, varied in colour and mixed."""

# Shapes: B images, S side of the input in pixels.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mtframe.data import DecodeSize, Inputs, Placement, Sample
from mtframe.errors import RecipeError

from .mixing import mix

# The part of a thing that a random crop must leave for it to count.
_MIN_VISIBLE = 0.2

# A crop's place in the decoded image: top, left, height, width in pixels; and whether it is mirrored.
_Crop = tuple[int, int, int, int, bool]


class ImageCrop:
    """Fills the network's square with a part of each picture.

    In training the part is drawn at random (Inception's crops, arXiv:1409.4842, section 6), mirrored and varied
    in colour, and pictures may be mixed. In evaluation it is the square in the middle, exact and antialiased.

    Args:
        size: Side of the network's square input in pixels.
        train: Whether to augment.
        scale: Smallest and largest area of a crop, as a part of the picture's.
        ratio: Narrowest and widest shape of a crop, width over height, before it is made square.
        flip: Probability of mirroring. 0 where left and right matter, as for places and angles.
        crop: Side of the square that evaluation sees, as a part of the picture's shorter side.
        brightness: Largest relative change: the factor is drawn from 1 ± this.
        contrast: The same for contrast.
        saturation: The same for saturation.
        mixup: α of mixup (arXiv:1710.09412), e.g. 0.2; 0 for none.
        cutmix: α of CutMix (arXiv:1905.04899), e.g. 1.0; 0 for none. With both, each picture draws one of them.

    Attributes:
        mixes: Whether pictures are mixed in training.

    Raises:
        RecipeError: An option is out of its range.
    """

    fixed_size = True

    def __init__(
        self,
        size: int,
        train: bool,
        *,
        scale: tuple[float, float] = (0.35, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        crop: float = 0.9,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.3,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise RecipeError(f"scale: must be a rising range within 0..1, as in [0.35, 1], got {list(scale)}")
        if not 0 < ratio[0] <= ratio[1]:
            raise RecipeError(f"ratio: must be a rising range above 0, as in [0.75, 1.33], got {list(ratio)}")
        for name, value, least, most in (
            ("flip", flip, 0, 1), ("crop", crop, 0.05, 1), ("brightness", brightness, 0, 1),
            ("contrast", contrast, 0, 1), ("saturation", saturation, 0, 1),
            ("mixup", mixup, 0, math.inf), ("cutmix", cutmix, 0, math.inf),
        ):  # fmt: skip
            if not least <= value <= most:
                raise RecipeError(f"{name}: must be {least:g} to {most:g}, got {value:g}")
        self.mixes = train and bool(mixup or cutmix)
        self.size, self.train = size, train
        self.scale, self.ratio, self.flip, self.crop = scale, ratio, flip, crop
        self.colour = np.array([brightness, contrast, saturation])
        self.mixup, self.cutmix = mixup, cutmix
        self.evaluates_as = crop
        # By the typical crop: a smaller one is enlarged, as it would be from any picture of that size.
        side = math.sqrt((scale[0] + scale[1]) / 2) if train else crop
        self.decode_size: DecodeSize | None = DecodeSize(shorter=math.ceil(size / side))

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        """Images of any sizes to (B, 3, S, S) uint8."""
        crops = [self._place(sample.image, rng) for sample in samples]
        images = torch.stack([self._cut(sample.image, crop, rng) for sample, crop in zip(samples, crops, strict=True)])
        inputs = Inputs(images, [(self._placement(samples, number, crop),) for number, crop in enumerate(crops)])
        return mix(inputs, rng, mixup=self.mixup, cutmix=self.cutmix) if self.mixes else inputs

    def _place(self, image: Tensor, rng: np.random.Generator) -> _Crop:
        height, width = image.shape[-2:]
        if not self.train:
            side = max(1, round(self.crop * min(height, width)))
            return (height - side) // 2, (width - side) // 2, side, side, False
        area = rng.uniform(*self.scale) * height * width
        ratio = math.exp(rng.uniform(*np.log(self.ratio)))
        # Where it does not fit in, it is made smaller and keeps its shape.
        high = min(math.sqrt(area / ratio), height, width / ratio)
        rows, columns = max(1, round(high)), min(width, max(1, round(high * ratio)))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        return int(top), int(left), rows, columns, bool(rng.random() < self.flip)

    def _cut(self, image: Tensor, crop: _Crop, rng: np.random.Generator) -> Tensor:
        top, left, height, width, mirrored = crop
        part = functional.resized_crop(image, top, left, height, width, [self.size, self.size], antialias=True)
        if mirrored:
            part = functional.horizontal_flip(part)
        if self.train and self.colour.any():
            brightness, contrast, saturation = rng.uniform(1 - self.colour, 1 + self.colour).tolist()
            part = functional.adjust_brightness(part, brightness)
            part = functional.adjust_contrast(part, contrast)
            part = functional.adjust_saturation(part, saturation)
        return part

    def _placement(self, samples: Sequence[Sample], number: int, crop: _Crop) -> Placement:
        sample = samples[number]
        top, left, height, width, mirrored = crop
        x, y = self.size / width, self.size / height
        # From pixels of the original, by way of those of the decoded image.
        scale = x * sample.image.shape[2] / sample.size[1], y * sample.image.shape[1] / sample.size[0]
        placement = Placement.scaled(sample.size, (self.size,) * 2, scale, (-left * x, -top * y), sample=number)
        placement = placement.flipped() if mirrored else placement
        return replace(placement, min_visible=_MIN_VISIBLE if self.train else None)
