"""Samples to square batches: letterbox, and in training scale, crop, mirror, mosaic and colour."""

# Shapes: B images, N boxes of one image, M boxes (padded).

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.transforms.v2 import functional

from mtframe.data import Batch, DecodeSize, Geometry, Sample, to_uint8
from mtframe.errors import RecipeError

# Grey of the padding, near the mean of photographs.
_GREY = 114

# Of the random scale: an image takes its square of memory. As of `test_scales`.
_MOST_SCALE = 8

# Of red, green and blue (ITU-R BT.601), as transforms.v2 has them.
_GREY_WEIGHTS = (0.2989, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one image goes: scaled to `size` (height, width), at `offset` (x, y), cut to `window`."""

    window: tuple[int, int, int, int]
    size: tuple[int, int]
    offset: tuple[int, int]


class Letterbox:
    """Fits each image, its proportions kept, into a square; the rest is grey.

    In training the image is also scaled at random, cut or moved where it is then larger or smaller than the
    square, mirrored, varied in colour, and with some probability made a mosaic of four images of the batch.
    What is left of an object that was cut to a sliver is neither wanted nor punished: it becomes a region to
    ignore, as crowds are.

    Args:
        size: Pixels of the square.
        train: Whether to augment.
        flip: Probability of mirroring.
        scale: Range of the random scale against a plain fit, at most 8, drawn evenly in logarithm.
        mosaic: Probability of a mosaic.
        brightness: Largest relative change: the factor is drawn from 1 ± so much.
        contrast: The same for contrast.
        saturation: The same for saturation.
        sizes: Multi-scale training: the square's size is drawn from these for each batch. Multiples of 32.
        min_visible: Part of an object's area that must be left for it to be a target.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "boxes"

    def __init__(
        self,
        size: int,
        train: bool,
        *,
        flip: float = 0.5,
        scale: tuple[float, float] = (0.7, 1.5),
        mosaic: float = 0.0,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.3,
        sizes: tuple[int, ...] | None = None,
        min_visible: float = 0.2,
    ) -> None:
        for name, value in (
            ("flip", flip), ("mosaic", mosaic), ("min_visible", min_visible),
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
        self.flip, self.scale, self.mosaic, self.min_visible = flip, scale, mosaic, min_visible
        self.sizes = tuple(sizes) if sizes and train else (size,)
        self.fixed_size = len(set(self.sizes)) == 1
        self.mixes = train and mosaic > 0
        # Images magnified at random may be blurred by up to the root of the largest factor: what is decoded
        # at half its size is resized faster too.
        zoom = math.sqrt(max(scale[1], 1.0)) if train else 1.0
        self.decode_size: DecodeSize | None = DecodeSize(longer=math.floor(max(self.sizes) * zoom))
        self.colour = np.array([brightness, contrast, saturation])

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Batch:
        """Samples to one batch.

        Targets: `boxes` (B, M, 4) XYXY in pixels of the input, `labels` (B, M), `valid` (B, M) bool; and
        regions to ignore, `ignore` (B, K, 4) and `ignore_valid` (B, K) bool. The geometry of a mirrored image
        has a negative x scale; that of a mosaic is its first image's.
        """
        side = int(rng.choice(self.sizes)) if self.train else self.size
        images = torch.full((len(samples), 3, side, side), _GREY, dtype=torch.uint8)
        targets, transforms = [], []
        for number, sample in enumerate(samples):
            parts = self._compose(number, samples, side, rng)
            factors = self._factors(rng)
            for part, place in parts:
                _draw(images[number], part.image, place, factors)
            # A picture to predict has no targets.
            target = self._targets(parts) if "boxes" in sample.target else {}
            transform = _transform(sample, parts[0][1])
            if self.train and rng.random() < self.flip:
                images[number] = functional.horizontal_flip(images[number])
                target, transform = _mirror(target, transform, side)
            targets.append(target)
            transforms.append(transform)
        return Batch(
            images=images,
            targets=_collate(targets) if targets[0] else {},
            geometry=Geometry(
                torch.tensor([scale for scale, _ in transforms]),
                torch.tensor([offset for _, offset in transforms]),
                torch.tensor([sample.size for sample in samples]),
            ),
            samples=[] if self.train else [sample.without_image() for sample in samples],
        )

    def _compose(
        self, number: int, samples: Sequence[Sample], side: int, rng: np.random.Generator
    ) -> list[tuple[Sample, _Place]]:
        """What is drawn where: the image itself, or it and three others around a random corner."""
        sample = samples[number]
        if not self.train:
            return [(sample, _fit(sample.size, (0, 0, side, side), 1.0, 0.5, 0.5))]
        if rng.random() >= self.mosaic:
            return [(sample, self._random_fit(sample, (0, 0, side, side), rng))]
        x, y = (int(value) for value in rng.uniform(0.3, 0.7, 2) * side)
        windows = [(0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side)]
        others = [samples[other] for other in rng.integers(len(samples), size=3)]
        return [
            (part, self._random_fit(part, window, rng))
            for part, window in zip([sample, *others], rng.permutation(windows).tolist(), strict=True)
        ]

    def _factors(self, rng: np.random.Generator) -> list[float] | None:
        """Of brightness, contrast and saturation; None where nothing is varied."""
        if not self.train or not self.colour.any():
            return None
        return rng.uniform(np.maximum(0, 1 - self.colour), 1 + self.colour).tolist()

    def _random_fit(self, sample: Sample, window: Sequence[int], rng: np.random.Generator) -> _Place:
        zoom = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        return _fit(sample.size, window, zoom, rng.random(), rng.random())

    def _targets(self, parts: Sequence[tuple[Sample, _Place]]) -> dict[str, Tensor]:
        """Boxes in pixels of the input: `boxes` (N, 4), `labels` (N,), `ignore` (K, 4)."""
        boxes, labels, ignore = [], [], []
        for sample, place in parts:
            scale, offset = _transform(sample, place)
            whole = sample.target["boxes"].float() * torch.tensor(scale * 2) + torch.tensor(offset * 2)
            x1, y1, x2, y2 = place.window
            seen = torch.minimum(whole, torch.tensor([x2, y2, x2, y2]))
            seen = torch.maximum(seen, torch.tensor([x1, y1, x1, y1]))
            left = (seen[:, 2:] - seen[:, :2]).clamp(min=0)
            # In evaluation nothing is cut, and the loss should see what is scored.
            least, side = (self.min_visible, 2.0) if self.train else (0.0, 0.0)
            area = (whole[:, 2:] - whole[:, :2]).prod(dim=1)
            clear = (left.prod(dim=1) >= least * area) & (left >= side).all(dim=1) & ~sample.target["crowd"]
            boxes.append(seen[clear])
            labels.append(sample.target["labels"][clear])
            ignore.append(seen[~clear & (left > 0).all(dim=1)])
        return {"boxes": torch.cat(boxes), "labels": torch.cat(labels), "ignore": torch.cat(ignore)}


def _fit(size: tuple[int, int], window: Sequence[int], zoom: float, right: float, down: float) -> _Place:
    """Scales an image of `size` to `zoom` times what fits a window; `right` and `down` place it there, 0..1.

    A larger image covers the window and is cut; a smaller one lies in it whole.
    """
    x1, y1, x2, y2 = window
    factor = zoom * min((y2 - y1) / size[0], (x2 - x1) / size[1])
    height, width = (max(1, round(length * factor)) for length in size)
    offset = x1 + round((x2 - x1 - width) * right), y1 + round((y2 - y1 - height) * down)
    return _Place((x1, y1, x2, y2), (height, width), offset)


def _transform(sample: Sample, place: _Place) -> tuple[tuple[float, float], tuple[float, float]]:
    """Scale and offset, x and y, such that input = original * scale + offset."""
    height, width = sample.size
    return (place.size[1] / width, place.size[0] / height), (float(place.offset[0]), float(place.offset[1]))


def _draw(canvas: Tensor, image: Tensor, place: _Place, factors: Sequence[float] | None) -> None:
    """Resizes an image and copies what its window shows of it, in varied colours."""
    image = functional.resize(image, list(place.size), antialias=True)
    (x, y), (height, width) = place.offset, place.size
    left, top = max(x, place.window[0]), max(y, place.window[1])
    right, bottom = min(x + width, place.window[2]), min(y + height, place.window[3])
    # By numpy: images are decoded pixel by pixel, and torch takes twice as long to make planes of them.
    part = np.ascontiguousarray(image[:, top - y : bottom - y, left - x : right - x].numpy())
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


def _mirror(
    target: dict[str, Tensor], transform: tuple[tuple[float, float], tuple[float, float]], side: int
) -> tuple[dict[str, Tensor], tuple[tuple[float, float], tuple[float, float]]]:
    mirrored = dict(target)
    for name in ("boxes", "ignore"):
        x1, y1, x2, y2 = target[name].unbind(dim=1)
        mirrored[name] = torch.stack([side - x2, y1, side - x1, y2], dim=1)
    (x_scale, y_scale), (x_offset, y_offset) = transform
    return mirrored, ((-x_scale, y_scale), (side - x_offset, y_offset))


def _collate(targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Pads each image's targets to the longest, with masks."""
    padded = {name: pad_sequence([target[name] for target in targets], batch_first=True) for name in targets[0]}
    for mask, name in (("valid", "boxes"), ("ignore_valid", "ignore")):
        numbers = torch.tensor([len(target[name]) for target in targets])
        padded[mask] = torch.arange(padded[name].shape[1]) < numbers[:, None]
    return padded
