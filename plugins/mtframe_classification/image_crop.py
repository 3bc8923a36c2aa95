"""Random crops of whole pictures, mirrored, varied in colour and mixed."""

# Shapes: B images, H height, W width, S side of the input in pixels, C classes, K numbers.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from mtframe.data import Batch, DataInfo, DecodeSize, Geometry, Sample
from mtframe.errors import RecipeError

from .mixing import mix

# A crop's place in the decoded image: top, left, height, width in pixels; and whether it is mirrored.
_Crop = tuple[int, int, int, int, bool]


class ImageCrop:
    """Fills the network's square with a part of each picture.

    In training the part is drawn at random (Inception's crops, arXiv:1409.4842, section 6), mirrored and varied
    in colour, and pictures may be mixed. In evaluation it is the square in the middle, exact and antialiased.

    Args:
        size: Side of the network's square input in pixels.
        train: Whether to augment.
        info: Of the training data.
        scale: Smallest and largest area of a crop, as a part of the picture's.
        ratio: Narrowest and widest shape of a crop, width over height, before it is made square.
        flip: Probability of mirroring. 0 where left and right matter, as for places and angles.
        crop: Side of the square that evaluation sees, as a part of the picture's shorter side.
        brightness: Largest relative change: the factor is drawn from 1 ± so much.
        contrast: The same for contrast.
        saturation: The same for saturation.
        mixup: α of mixup (arXiv:1710.09412), e.g. 0.2; 0 for none.
        cutmix: α of CutMix (arXiv:1905.04899), e.g. 1.0; 0 for none. With both, each picture draws one of them.

    Attributes:
        mixes: Whether pictures are mixed in training.

    Raises:
        RecipeError: An option is out of its range, or numbers were to be mixed.
    """

    target: ClassVar[tuple[str, ...]] = ("label", "labels", "value")
    fixed_size = True

    def __init__(
        self,
        size: int,
        train: bool,
        info: DataInfo,
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
        self.mixes = bool(mixup or cutmix)
        if self.mixes and info.target == "value":
            raise RecipeError(
                f"{'mixup' if mixup else 'cutmix'}: mixes labels of classes; a mixture of two pictures has no number "
                "in between"
            )
        self.size, self.train, self.classes = size, train, len(info.classes)
        self.scale, self.ratio, self.flip, self.crop = scale, ratio, flip, crop
        self.colour = np.array([brightness, contrast, saturation])
        self.mixup, self.cutmix = mixup, cutmix
        # Of the typical crop; a smaller one is enlarged, as it would be from any picture of that size.
        side = math.sqrt((scale[0] + scale[1]) / 2) if train else crop
        self.decode_size: DecodeSize | None = DecodeSize(shorter=math.ceil(size / side))

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Batch:
        """Images of any sizes to (B, 3, S, S) uint8.

        Targets, where the samples have them: `label` (B,) long, `labels` (B, C) or `value` (B, K) float; mixed
        images also have `probabilities` (B, C) beside `label`. The geometry of a mirrored image has a negative x
        scale; that of a mixed one is its own, not its partner's.
        """
        crops = [self._place(sample.image, rng) for sample in samples]
        images = torch.stack([self._cut(sample.image, crop, rng) for sample, crop in zip(samples, crops, strict=True)])
        targets = {
            name: torch.stack([sample.target[name] for sample in samples])
            for name in self.target
            if name in samples[0].target
        }
        if self.train and self.mixes:
            images, targets = mix(images, targets, self.classes, rng, mixup=self.mixup, cutmix=self.cutmix)
        kept = [] if self.train else [sample.without_image() for sample in samples]
        return Batch(images, targets, self._geometry(samples, crops), kept)

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

    def _geometry(self, samples: Sequence[Sample], crops: Sequence[_Crop]) -> Geometry:
        size = torch.tensor([sample.size for sample in samples])
        decoded = torch.tensor([sample.image.shape[-2:] for sample in samples])
        place = torch.tensor([crop[:4] for crop in crops])
        # Of the decoded image; height and width become x and y.
        zoom = (self.size / place[:, 2:]).flip(1)
        scale, offset = zoom * (decoded / size).flip(1), -place[:, :2].flip(1) * zoom
        mirrored = torch.tensor([crop[4] for crop in crops])
        scale[mirrored, 0] *= -1
        offset[mirrored, 0] = self.size - offset[mirrored, 0]
        return Geometry(scale.float(), offset.float(), size)
