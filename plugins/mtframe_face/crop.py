"""Cropping faces out of funneled pictures, and augmenting them, a batch at a time."""

# Shapes: B images, H height, W width, S side of the input in pixels.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.data import Batch, DataInfo, DecodeSize, Geometry, Sample, to_uint8

from .augmentation import Light, Moves, check_range, faces_batch, square


class FaceCrop:
    """The middle of each picture, where LFW's funneling puts the face, at the network's size.

    A funneled LFW picture is 250×250 with the face in the middle 45 %; the rest is background, whose
    resemblance within a person's pictures must not be learned. In training the crop is moved, turned, scaled
    and mirrored, for the whole batch in one resampling, and its light changed; in evaluation it is exact.

    Args:
        size: Side of the network's square input in pixels.
        train: Whether to augment.
        info: Of the training data; faces have no coordinates, so nothing of it matters here.
        crop: Side of the crop as a part of the picture's shorter side, above 0 and at most 1.
        flip: Probability of mirroring.
        rotate: Largest turn to either side in degrees.
        scale: Largest relative change of the crop's side, e.g. 0.1 for 0.9 to 1.1 times.
        shift: Largest shift, in sides of the crop, along each axis.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast, about the picture's mean.
        saturation: Largest relative change of colourfulness.
        erase: Probability of covering a random rectangle, 2 to 20 % of the input, with its mean colour.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "identity"
    fixed_size = True

    def __init__(
        self,
        size: int,
        train: bool,
        info: DataInfo | None = None,
        *,
        crop: float = 0.56,
        flip: float = 0.5,
        rotate: float = 10.0,
        scale: float = 0.1,
        shift: float = 0.05,
        brightness: float = 0.3,
        contrast: float = 0.2,
        saturation: float = 0.3,
        erase: float = 0.0,
    ) -> None:
        check_range("crop", crop, 0.05, 1)
        self.size, self.train, self.crop = size, train, crop
        self.moves = Moves(flip, rotate, scale, shift)
        self.light = Light(brightness, contrast, saturation, erase)
        # Smaller than this, the crop itself would be enlarged.
        self.decode_size: DecodeSize | None = DecodeSize(shorter=math.ceil(size / crop))

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Batch:
        """Images of any sizes to (B, 3, S, S) uint8; labels, where the samples have them, to `label` (B,) long."""
        images = self._augmented(samples, rng) if self.train else self._cropped(samples)
        return faces_batch(images, samples, self._geometry(samples), train=self.train)

    def _cropped(self, samples: Sequence[Sample]) -> Tensor:
        images = [_middle(sample.image, self.crop) for sample in samples]
        if len({image.shape for image in images}) == 1:
            return square(torch.stack(images), self.size)
        return torch.cat([square(image[None], self.size) for image in images])

    def _augmented(self, samples: Sequence[Sample], rng: np.random.Generator) -> Tensor:
        # Only what the moved crop can reach is worth converting to float; beyond a picture its edge repeats.
        moves = self.moves
        reach = (1 + moves.scale) * (1 + 2 * moves.shift) * (1 + math.sin(math.radians(min(moves.rotate, 45))))
        side = min(1.0, self.crop * reach)
        images = [_middle(sample.image, side) for sample in samples]
        # One resampling without a low-pass filter is fair up to about half the size.
        limit = 2 * self.size * side / self.crop
        if len({image.shape for image in images}) > 1 or images[0].shape[-1] > limit:
            common = round(self.size * side / self.crop)
            images = [square(image[None], common)[0] for image in images]
        # Copied one by one: stacking transposes from pixels to planes and converts in two slower passes.
        stacked = torch.empty(len(images), *images[0].shape)
        for place, image in zip(stacked, images, strict=True):
            place.copy_(image)
        faces = self._moved(stacked, side, rng)
        return to_uint8(self.light(faces, rng))

    def _moved(self, images: Tensor, side: float, rng: np.random.Generator) -> Tensor:
        """Crop, turn, scale, shift, mirror and resize, as one affine map for each image."""
        angle, zoom, mirror, offset = self.moves.draw(len(images), rng)
        # In normalised coordinates, -1..1 over `images`, of which the crop is the part crop / side.
        zoom, offset = zoom * self.crop / side, offset * 2 * self.crop / side
        cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
        rows = np.array([[cosine * mirror, -sine, offset[:, 0]], [sine * mirror, cosine, offset[:, 1]]])
        affine = torch.from_numpy(rows).float()[..., None, None]
        # By hand what affine_grid does with one small matrix product for each image, several times slower.
        place = (torch.arange(self.size) * 2 + 1) / self.size - 1
        axes = [row[0] * place + row[1] * place[:, None] + row[2] for row in affine]
        grid = torch.stack(axes, dim=-1)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _geometry(self, samples: Sequence[Sample]) -> Geometry:
        """Of the crop before it is moved."""
        size = torch.tensor([sample.size for sample in samples])
        decoded = torch.tensor([sample.image.shape[-2:] for sample in samples])
        side = (self.crop * decoded.amin(1, keepdim=True)).round().clamp(min=1)
        # Height and width become x and y.
        scale = (self.size / side * decoded / size).flip(1).float()
        corner = ((decoded - side) / 2).floor().flip(1)
        return Geometry(scale, (-corner * self.size / side).float(), size)


def _middle(image: Tensor, part: float) -> Tensor:
    """The square in the middle of a (C, H, W) image, `part` of its shorter side wide."""
    height, width = image.shape[-2:]
    side = max(1, round(part * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, left : left + side]
