"""Aligning faces by five points, and augmenting them, a batch at a time."""

# Shapes: B images, H height, W width, S side of the input in pixels.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from mtframe.data import DecodeSize, Inputs, Placement, Sample, to_uint8
from mtframe.errors import BadImageError, DataError, RecipeError

from .augmentation import MIN_VISIBLE, Light, Moves
from .landmarks import OUTSIDE, Detector, detect, find_detector

# Where the five points come to lie in an image of 112×112, as everybody has it who compares with ArcFace
# (arXiv:1801.07698, section 3.1; x and y of left eye, right eye, nose, left and right corner of the mouth).
TEMPLATE_SIZE = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

# One resampling without a low-pass filter is fair down to about half the size.
_UNFILTERED = 2.0
_NO_MOVES = Moves()


def fit_similarity(points: np.ndarray, goals: np.ndarray) -> tuple[complex, complex]:
    """The turn, scale and shift that bring points nearest to goals, in the sense of least squares; no mirroring.

    In the plane, with points as complex numbers, that is a regression: goal = a point + b. It is what Umeyama's method
    (IEEE TPAMI 13(4), 1991) gives where that does not mirror.

    Args:
        points: (N, 2) x and y.
        goals: (N, 2), likewise.

    Returns:
        a and b; abs(a) is the scale.

    Raises:
        ValueError: All points are in one place.
    """
    z, w = (np.asarray(part, float) @ np.array([1, 1j]) for part in (points, goals))
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if not spread > 1e-6:
        raise ValueError("all points are in one place")
    a = np.vdot(centred, w - w.mean()) / spread
    return complex(a), complex(w.mean() - a * z.mean())


class FaceAlign:
    """Turns, scales and shifts each face so that eyes, nose and mouth come to lie where they always do.

    The common template of 112×112, scaled to the network's size. The five points are the sample's `landmarks`, which
    `identity-folders` and `lfw` take from a file, or those that a detector finds. In training the face is moved a
    little, mirrored and its light changed, within the same single resampling; in evaluation it is exact.

    Args:
        size: Side of the network's square input in pixels.
        train: Whether to augment.
        detector: What finds the points where a sample has none: a name of the entry-point group
            `mtframe_face.landmarks`, or `./file.py:Class`, relative to the current folder; null for none. A run
            keeps a copy of the file and names it relative to its own folder.
        aligned: Whether a picture without points is aligned already: its middle square is taken as it is.
        flip: Probability of mirroring.
        rotate: Largest turn to either side in degrees.
        scale: Largest relative change of what is seen, e.g. 0.1 for 0.9 to 1.1 times.
        shift: Largest shift, in sides of the input, along each axis.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast, about the picture's mean.
        saturation: Largest relative change of colourfulness.
        erase: Probability of covering a random rectangle, 2 to 20 % of the input, with its mean colour.

    Raises:
        RecipeError: An option is out of its range, or there is no such detector.
    """

    fixed_size = True
    # How large a face is in its picture is known only once it is read.
    decode_size: DecodeSize | None = None

    def __init__(
        self,
        size: int,
        train: bool,
        *,
        detector: str | None = None,
        aligned: bool = False,
        flip: float = 0.5,
        rotate: float = 5.0,
        scale: float = 0.05,
        shift: float = 0.03,
        brightness: float = 0.3,
        contrast: float = 0.2,
        saturation: float = 0.3,
        erase: float = 0.0,
    ) -> None:
        self.size, self.train, self.aligned = size, train, aligned
        self.moves = Moves(flip, rotate, scale, shift)
        self.light = Light(brightness, contrast, saturation, erase)
        self.evaluates_as = aligned, detector
        self.detector: Detector | None = find_detector(detector) if detector is not None else None

    @classmethod
    def outside(cls, **options: Any) -> str | None:
        """What the model learns from besides images and labels, in words: whoever aligned the faces knew the points."""
        return OUTSIDE

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        """Images of any sizes to (B, 3, S, S) uint8.

        Raises:
            RecipeError: A sample has no landmarks, and there is no detector.
            BadImageError: The detector finds no face.
            DataError: Landmarks are all in one place, or the detector gives something else than points.
        """
        fits = np.array([self._fit(sample) for sample in samples])
        maps = self._maps(fits, self.moves if self.train else _NO_MOVES, rng)
        faces = self._resampled([sample.image for sample in samples], maps)
        if self.train:
            faces = self.light(faces, rng)
        least = MIN_VISIBLE if self.train else None
        placements = [
            (replace(self._placement(samples, number, its), min_visible=least),) for number, its in enumerate(maps.T)
        ]
        return Inputs(to_uint8(faces), placements)

    def _fit(self, sample: Sample) -> tuple[complex, complex]:
        """a and b of input = a x + b, for pixels x of the image as it was decoded."""
        height, width = sample.image.shape[-2:]
        points = sample.target.get("landmarks")
        if points is not None and not points.isnan().any():
            points = points * torch.tensor([width / sample.size[1], height / sample.size[0]])
        else:
            points = detect(self.detector, sample.image, sample.id) if self.detector is not None else None
        if points is None:
            return self._whole(sample)
        try:
            return fit_similarity(points.numpy(), TEMPLATE * (self.size / TEMPLATE_SIZE))
        except ValueError as error:
            raise DataError(f"{sample.id}: a face cannot be aligned by these landmarks: {error}") from None

    def _whole(self, sample: Sample) -> tuple[complex, complex]:
        """The middle square of a picture that is aligned already."""
        name = sample.id or "the picture"
        if not self.aligned and self.detector is not None:
            raise BadImageError(
                name, "the detector finds no face in it. Remove it, or take such pictures whole, with "
                "transform.aligned=true"
            )  # fmt: skip
        if not self.aligned:
            raise RecipeError(
                f"{name}: no landmarks to align the face by. Give the data set a file of them "
                "(dataset.landmarks=FILE), or the transform a detector (transform.detector=NAME); pictures that are "
                "aligned already take transform.aligned=true"
            )
        height, width = sample.image.shape[-2:]
        side = min(height, width)
        scale = self.size / side
        return complex(scale), complex(-scale * (width - side) / 2, -scale * (height - side) / 2)

    def _maps(self, fits: np.ndarray, moves: Moves, rng: np.random.Generator) -> np.ndarray:
        """(3, B) complex p, q and r: where p x + q y + r of the image is seen at x and y, -1..1 over the input."""
        a, b = fits.T
        half = self.size / 2
        angle, zoom, mirror, shift = moves.draw(len(a), rng)
        turn = half * zoom * np.exp(1j * angle) / a
        middle = half * (1 + 1j) + self.size * shift @ np.array([1, 1j])
        return np.array([turn * mirror, turn * 1j, (middle - b) / a])

    def _resampled(self, images: Sequence[Tensor], maps: np.ndarray) -> Tensor:
        """(B, 3, S, S) float: one bilinear resampling of all images, of what each shows of its face."""
        cut = [self._cut(image, *of) for image, of in zip(images, maps.T, strict=True)]
        sizes = torch.tensor([part.shape[-2:] for part, _ in cut])
        height, width = sizes.amax(0).tolist()
        # Parts of different sizes lie in the corner of one canvas; beyond a part, its edge repeats. What lies beyond is
        # met with a weight of a rounding error, so it must be a number.
        canvas = torch.zeros(len(cut), 3, height, width)
        for place, (part, _) in zip(canvas, cut, strict=True):
            place[:, : part.shape[1], : part.shape[2]] = part
        rows = np.array([[[p.real, q.real, r.real], [p.imag, q.imag, r.imag]] for _, (p, q, r) in cut])
        affine = torch.from_numpy(rows).float().permute(1, 2, 0)[..., None, None]
        along = (torch.arange(self.size) * 2 + 1) / self.size - 1
        axes = []
        for (p, q, r), limit, extent in zip(affine, sizes.flip(1).T, (width, height), strict=True):
            pixels = (p * along + q * along[:, None] + r).clamp(min=0.5)
            axes.append(pixels.minimum((limit - 0.5)[:, None, None]) * (2 / extent) - 1)
        return F.grid_sample(canvas, torch.stack(axes, -1), mode="bilinear", align_corners=False)

    def _cut(self, image: Tensor, p: complex, q: complex, r: complex) -> tuple[Tensor, tuple[complex, ...]]:
        """The part of an image that is seen, made smaller where a face is much too large, and the map into it."""
        height, width = image.shape[-2:]
        reach = complex(abs(p.real) + abs(q.real) + 2, abs(p.imag) + abs(q.imag) + 2)
        left, right = _within(r.real - reach.real, r.real + reach.real, width)
        top, bottom = _within(r.imag - reach.imag, r.imag + reach.imag, height)
        part, r = image[:, top:bottom, left:right], r - complex(left, top)
        shrink = abs(p) / (self.size / 2)
        if shrink <= _UNFILTERED:
            return part, (p, q, r)
        # Not 1, of points far outside of the image: torch's antialiased resizing of bytes to a single pixel fails.
        sides = [max(2, round(side / shrink)) for side in part.shape[1:]]
        x, y = sides[1] / part.shape[2], sides[0] / part.shape[1]
        part = resize(part.contiguous(), sides, antialias=True)
        return part, tuple(complex(number.real * x, number.imag * y) for number in (p, q, r))

    def _placement(self, samples: Sequence[Sample], number: int, maps: Sequence[complex]) -> Placement:
        """Where a sample's image is in its input, by what `_maps` gives for it."""
        p, q, r = maps
        sample = samples[number]
        height, width = sample.image.shape[-2:]
        normal = np.array([[2 / self.size, 0, -1], [0, 2 / self.size, -1], [0, 0, 1]])
        decoded = np.array([[p.real, q.real, r.real], [p.imag, q.imag, r.imag]])
        original = np.array([[sample.size[1] / width], [sample.size[0] / height]])
        return Placement.by_inverse(original * (decoded @ normal), sample.size, (self.size,) * 2, sample=number)


def _within(low: float, high: float, side: int) -> tuple[int, int]:
    """The pixels between two places that an axis has; at least one."""
    first = min(max(math.floor(low), 0), side - 1)
    return first, max(min(math.ceil(high), side), first + 1)
