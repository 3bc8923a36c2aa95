"""Cropping faces out of funneled pictures, and augmenting them, a batch at a time."""

# Shapes: B images, H height, W width, S side of the input in pixels.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.data import DecodeSize, Inputs, Placement, Sample, to_uint8

from .augmentation import MIN_VISIBLE, Light, Moves, check_range, square

# Part of a funneled LFW picture that is the face; and pixels of a side of a picture that is nothing else.
_FUNNELED, _ALIGNED = 0.56, 112


class FaceCrop:
    """The middle of each picture, where LFW's funneling puts the face, at the network's size.

    A funneled LFW picture is 250×250 with the face in the middle 45 %; the rest is background, whose
    resemblance within a person's pictures must not be learned. A picture of 112×112, the size to which faces are
    aligned (arXiv:1801.07698), is such a crop already and is taken whole. In training the crop is moved, turned, scaled
    and mirrored, for the whole batch in one resampling, and its light changed; in evaluation it is exact.

    Args:
        size: Side of the network's square input in pixels.
        train: Whether to augment.
        crop: Side of the crop as a part of every picture's shorter side, above 0 and at most 1; null for 0.56, and all
            of pictures of 112×112.
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

    fixed_size = True

    def __init__(
        self,
        size: int,
        train: bool,
        *,
        crop: float | None = None,
        flip: float = 0.5,
        rotate: float = 10.0,
        scale: float = 0.1,
        shift: float = 0.05,
        brightness: float = 0.3,
        contrast: float = 0.2,
        saturation: float = 0.3,
        erase: float = 0.0,
    ) -> None:
        if crop is not None:
            check_range("crop", crop, 0.05, 1)
        self.size, self.train, self.crop = size, train, crop
        self.evaluates_as = crop
        self.moves = Moves(flip, rotate, scale, shift)
        self.light = Light(brightness, contrast, saturation, erase)
        # Smaller than this, the crop itself would be enlarged.
        self.decode_size: DecodeSize | None = DecodeSize(shorter=math.ceil(size / (crop or _FUNNELED)))

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        """Images of any sizes to (B, 3, S, S) uint8."""
        if not self.train:
            placements = [(_placement(samples, n, self.size, self._part(sample)),) for n, sample in enumerate(samples)]
            return Inputs(self._cropped(samples), placements)
        images, moves = self._augmented(samples, rng)
        placements = [
            (replace(_placement(samples, n, self.size, self._part(samples[n]), move), min_visible=MIN_VISIBLE),)
            for n, move in enumerate(moves)
        ]
        return Inputs(images, placements)

    def _part(self, sample: Sample) -> float:
        """How much of a picture's shorter side is seen."""
        if self.crop is not None:
            return self.crop
        return 1.0 if sample.size == (_ALIGNED, _ALIGNED) else _FUNNELED

    def _cropped(self, samples: Sequence[Sample]) -> Tensor:
        images = [_middle(sample.image, self._part(sample)) for sample in samples]
        if len({image.shape for image in images}) == 1:
            return square(torch.stack(images), self.size)
        return torch.cat([square(image[None], self.size) for image in images])

    def _augmented(self, samples: Sequence[Sample], rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        """The images, and how each was moved: (B, 2, 3) maps of -1..1 over the input to -1..1 over the crop."""
        # Only what the moved crop can reach is worth converting to float; beyond a picture its edge repeats.
        moves = self.moves
        reach = (1 + moves.scale) * (1 + 2 * moves.shift) * (1 + math.sin(math.radians(min(moves.rotate, 45))))
        part_B = np.array([self._part(sample) for sample in samples])
        side_B = np.minimum(1.0, part_B * reach)
        images = [_middle(sample.image, side) for sample, side in zip(samples, side_B.tolist(), strict=True)]
        # One resampling without a low-pass filter is fair up to about half the size.
        largest = float((self.size * side_B / part_B).max())
        if len({image.shape for image in images}) > 1 or images[0].shape[-1] > 2 * largest:
            common = round(largest)
            images = [square(image[None], common)[0] for image in images]
        # Copied one by one: stacking transposes from pixels to planes and converts in two slower passes.
        stacked = torch.empty(len(images), *images[0].shape)
        for place, image in zip(stacked, images, strict=True):
            place.copy_(image)
        faces, maps = self._moved(stacked, part_B, side_B, rng)
        return to_uint8(self.light(faces, rng)), maps

    def _moved(
        self, images: Tensor, part_B: np.ndarray, side_B: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, np.ndarray]:
        """Crop, turn, scale, shift, mirror and resize, as one affine map for each image.

        Args:
            images: (B, 3, H, W), cut around the crop.
            part_B: The crop's side, as a part of the picture's shorter side.
            side_B: That of `images`, likewise.
            rng: Draws the moves.
        """
        angle, zoom, mirror, offset = self.moves.draw(len(images), rng)
        # In normalised coordinates, -1..1 over `images`, of which the crop is the part part / side.
        zoom, offset = zoom * part_B / side_B, offset * 2 * part_B[:, None] / side_B[:, None]
        cosine, sine = zoom * np.cos(angle), zoom * np.sin(angle)
        rows = np.array([[cosine * mirror, -sine, offset[:, 0]], [sine * mirror, cosine, offset[:, 1]]])
        affine = torch.from_numpy(rows).float()[..., None, None]
        # By hand what affine_grid does with one small matrix product for each image, several times slower.
        place = (torch.arange(self.size) * 2 + 1) / self.size - 1
        axes = [row[0] * place + row[1] * place[:, None] + row[2] for row in affine]
        grid = torch.stack(axes, dim=-1)
        faces = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return faces, rows.transpose(2, 0, 1) * (side_B / part_B)[:, None, None]


_WHOLE = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _placement(samples: Sequence[Sample], number: int, size: int, crop: float, move: np.ndarray = _WHOLE) -> Placement:
    """Where a sample's image is in its input: cropped, then moved; `move` as `_augmented` gives it."""
    sample = samples[number]
    height, width = sample.image.shape[-2:]
    top, left, side = _square_in(height, width, crop)
    # From the input's pixels to -1..1, moved, to pixels of the decoded image, to those of the original.
    normal = np.array([[2 / size, 0, -1], [0, 2 / size, -1], [0, 0, 1]])
    moved = np.vstack([move, [0, 0, 1]]) @ normal
    decoded = np.array([[side / 2, 0, left + side / 2], [0, side / 2, top + side / 2], [0, 0, 1]])
    original = np.diag([sample.size[1] / width, sample.size[0] / height, 1])
    return Placement.by_inverse((original @ decoded @ moved)[:2], sample.size, (size, size), sample=number)


def _square_in(height: int, width: int, part: float) -> tuple[int, int, int]:
    """Top, left and side of the square in the middle of an image, `part` of its shorter side wide."""
    side = max(1, round(part * min(height, width)))
    return (height - side) // 2, (width - side) // 2, side


def _middle(image: Tensor, part: float) -> Tensor:
    """The square in the middle of a (C, H, W) image, `part` of its shorter side wide."""
    top, left, side = _square_in(image.shape[-2], image.shape[-1], part)
    return image[..., top : top + side, left : left + side]
