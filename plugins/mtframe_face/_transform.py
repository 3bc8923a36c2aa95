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
from torchvision.transforms.v2.functional import resize

from mtframe.data import Batch, DataInfo, DecodeSize, Geometry, Sample, to_uint8
from mtframe.errors import RecipeError

# Rec. 601 luma, what a grey picture is made of.
_LUMA = (0.299, 0.587, 0.114)


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
        _check("crop", crop, 0.05, 1)
        _check("rotate", rotate, 0, 180)
        for name, value in (("flip", flip), ("erase", erase)):
            _check(name, value, 0, 1)
        strengths = {"scale": scale, "shift": shift, "brightness": brightness}
        for name, value in (strengths | {"contrast": contrast, "saturation": saturation}).items():
            _check(name, value, 0, 0.95)
        self.size, self.train, self.crop = size, train, crop
        self.flip, self.rotate, self.scale, self.shift = flip, rotate, scale, shift
        self.brightness, self.contrast, self.saturation, self.erase = brightness, contrast, saturation, erase
        # Smaller than this, the crop itself would be enlarged.
        self.decode_size: DecodeSize | None = DecodeSize(shorter=math.ceil(size / crop))

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Batch:
        """Images of any sizes to (B, 3, S, S) uint8; labels, where the samples have them, to `label` (B,) long."""
        images = self._augmented(samples, rng) if self.train else self._cropped(samples)
        labels = [sample.target["label"] for sample in samples if "label" in sample.target]
        targets = {"label": torch.stack(labels)} if labels else {}
        kept = [] if self.train else [sample.without_image() for sample in samples]
        return Batch(images, targets, self._geometry(samples), kept)

    def _cropped(self, samples: Sequence[Sample]) -> Tensor:
        images = [_middle(sample.image, self.crop) for sample in samples]
        if len({image.shape for image in images}) == 1:
            return _square(torch.stack(images), self.size)
        return torch.cat([_square(image[None], self.size) for image in images])

    def _augmented(self, samples: Sequence[Sample], rng: np.random.Generator) -> Tensor:
        # Only what the moved crop can reach is worth converting to float; beyond a picture its edge repeats.
        reach = (1 + self.scale) * (1 + 2 * self.shift) * (1 + math.sin(math.radians(min(self.rotate, 45))))
        side = min(1.0, self.crop * reach)
        images = [_middle(sample.image, side) for sample in samples]
        # One resampling without a low-pass filter is fair up to about half the size.
        limit = 2 * self.size * side / self.crop
        if len({image.shape for image in images}) > 1 or images[0].shape[-1] > limit:
            common = round(self.size * side / self.crop)
            images = [_square(image[None], common)[0] for image in images]
        # Copied one by one: stacking transposes from pixels to planes and converts in two slower passes.
        stacked = torch.empty(len(images), *images[0].shape)
        for place, image in zip(stacked, images, strict=True):
            place.copy_(image)
        faces = self._moved(stacked, side, rng)
        return to_uint8(self._relit(faces, rng))

    def _moved(self, images: Tensor, side: float, rng: np.random.Generator) -> Tensor:
        """Crop, turn, scale, shift, mirror and resize, as one affine map for each image."""
        count = len(images)
        angle = np.radians(rng.uniform(-self.rotate, self.rotate, count))
        # In normalised coordinates, -1..1 over `images`, of which the crop is the part crop / side.
        zoom = rng.uniform(1 - self.scale, 1 + self.scale, count) * self.crop / side
        mirror = np.where(rng.random(count) < self.flip, -1.0, 1.0)
        offset = rng.uniform(-self.shift, self.shift, (count, 2)) * 2 * self.crop / side
        cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
        rows = np.array([[cosine * mirror, -sine, offset[:, 0]], [sine * mirror, cosine, offset[:, 1]]])
        affine = torch.from_numpy(rows).float()[..., None, None]
        # By hand what affine_grid does with one small matrix product for each image, several times slower.
        place = (torch.arange(self.size) * 2 + 1) / self.size - 1
        axes = [row[0] * place + row[1] * place[:, None] + row[2] for row in affine]
        grid = torch.stack(axes, dim=-1)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _relit(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Brightness, contrast and colourfulness, then the covered rectangle; changes `images`."""
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
            covered = self._rectangles(count, rng)
            images = torch.where(covered, images.mean((2, 3), keepdim=True), images)
        return images

    def _rectangles(self, count: int, rng: np.random.Generator) -> Tensor:
        """(B, 1, S, S) bool."""
        area = rng.uniform(0.02, 0.2, (count, 1)) * (rng.random((count, 1)) < self.erase)
        aspect = np.exp(rng.uniform(-1, 1, (count, 1)) * math.log(2))
        place = (np.arange(self.size) + 0.5) / self.size
        along = []
        for extent in (np.sqrt(area * aspect), np.sqrt(area / aspect)):
            start = rng.random((count, 1)) * (1 - extent)
            along.append(torch.from_numpy((place >= start) & (place < start + extent)))
        return (along[0][:, :, None] & along[1][:, None, :])[:, None]

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


def _square(images: Tensor, side: int) -> Tensor:
    return resize(images.contiguous(), [side, side], antialias=True)


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise RecipeError(f"{name}: must be {least:g} to {most:g}, got {value:g}")
