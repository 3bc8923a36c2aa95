"""Mixup and CutMix: one picture of two."""

# Shapes: B images, S side of the input in pixels.

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mtframe.data import Inputs, to_uint8


def mix(inputs: Inputs, rng: np.random.Generator, *, mixup: float, cutmix: float) -> Inputs:
    """Mixes each image with its partner from the batch's other end, in a proportion of its own.

    mixup, arXiv:1710.09412: a weighted sum of both; CutMix, arXiv:1905.04899: a rectangle of the other one. The middle
    one of an odd number is its own partner and stays as it is.

    Args:
        inputs: (B, 3, S, S) uint8, of one image each.
        rng: Source of everything random.
        mixup: α of the Beta distribution that proportions of mixup come from; 0 for no mixup.
        cutmix: The same for CutMix. With both, each image draws which it gets.

    Returns:
        The images, each made of two, its partner lying over it.
    """
    images, placements = inputs.images.clone(), list(inputs.placements)
    for number in range(len(images)):
        partner = len(images) - 1 - number
        cut = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
        kept = float(rng.beta(cutmix, cutmix) if cut else rng.beta(mixup, mixup))
        (other,) = inputs.placements[partner]
        if partner == number:
            continue
        if cut:
            left, top, right, bottom = _rectangle(images.shape[-1], kept, rng)
            images[number, :, top:bottom, left:right] = inputs.images[partner, :, top:bottom, left:right]
            above = replace(other, window=(float(left), float(top), float(right), float(bottom)))
        else:
            blend = inputs.images[number].float().lerp(inputs.images[partner].float(), 1 - kept)
            images[number] = to_uint8(blend)
            above = replace(other, share=1 - kept)
        placements[number] = (*inputs.placements[number], above)
    return Inputs(images, placements)


def _rectangle(side: int, kept: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a rectangle of 1 - `kept` of the area at a random place, clipped (eq. 2)."""
    half = math.sqrt(1 - kept) * side / 2
    x, y = rng.uniform(0, side, 2)
    left, top, right, bottom = (round(min(max(edge, 0), side)) for edge in (x - half, y - half, x + half, y + half))
    return left, top, right, bottom
