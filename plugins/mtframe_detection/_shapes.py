"""Shapes by their signed distance, and textures that say nothing about the shape. Imports no torch."""

# Shapes: H height, W width.

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mtframe.synthesis import Array, grid, noise, random_colour

# Signed distance of the point (x, y), y down, to a shape that just fits the unit circle; negative inside.
Distance = Callable[[Array, Array], Array]


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.9


def _square(x: Array, y: Array) -> Array:
    return np.maximum(np.abs(x), np.abs(y)) - 0.78


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(y, math.sqrt(0.75) * np.abs(x) - 0.5 * y) - 0.5


def _arrow(x: Array, y: Array) -> Array:
    down = np.abs(y)
    shaft = np.maximum(down - 0.22, np.abs(x + 0.4) - 0.6)
    head = np.maximum(0.05 - x, (x + 1.1 * down - 1) / math.hypot(1, 1.1))
    return np.minimum(shaft, head)


def _cross(x: Array, y: Array) -> Array:
    across, down = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(across, down) - 0.28, np.maximum(across, down) - 0.95)


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.72) - 0.23


def _heart(x: Array, y: Array) -> Array:
    # A square on its tip, with half a disc on each of its upper sides.
    u, v = (x + y) * 0.66, (y - x) * 0.66
    square = np.maximum(np.abs(u), np.abs(v)) - 0.5
    discs = np.minimum(np.hypot(u, v + 0.5), np.hypot(u + 0.5, v)) - 0.5
    return np.minimum(square, discs) / (0.66 * math.sqrt(2))


def _crescent(x: Array, y: Array) -> Array:
    return np.maximum(np.hypot(x, y) - 0.95, 0.78 - np.hypot(x - 0.5, y))


# Ids with gaps, as COCO's own have: a reader that takes an id for a label fails on them.
CATEGORIES: dict[int, str] = {
    1: "circle",
    2: "square",
    4: "triangle",
    7: "arrow",
    8: "cross",
    11: "ring",
    13: "heart",
    17: "crescent",
}
DISTANCES: dict[int, Distance] = dict(
    zip(
        CATEGORIES,
        (_circle, _square, _triangle, _arrow, _cross, _ring, _heart, _crescent),
        strict=True,
    )
)


def texture(rng: np.random.Generator, shape: tuple[int, ...], away_from: Array) -> Array:
    """Stripes, dots, checks, noise or a gradient in two random colours, (3, H, W).

    Args:
        rng: Source of everything random.
        shape: (H, W).
        away_from: (3,) colour of what lies behind; the main colour is the least similar of a few.
    """
    height, width = shape
    colours = [random_colour(rng) for _ in range(4)]
    main = max(colours, key=lambda colour: float(np.abs(colour - away_from).sum()))[:, None, None]
    other = main + 0.4 * (random_colour(rng)[:, None, None] - main)
    y, x = grid(height, width)
    angle, period = rng.uniform(0, math.pi), rng.uniform(4, 12)
    u = (math.cos(angle) * x + math.sin(angle) * y) * (2 * math.pi / period)
    v = (math.cos(angle) * y - math.sin(angle) * x) * (2 * math.pi / period)
    pattern: Array
    kind = rng.integers(5)
    if kind == 0:
        pattern = 0.5 + np.clip(1.5 * np.sin(u), -0.5, 0.5)
    elif kind == 1:
        pattern = np.clip(1.5 * (np.sin(u) + np.sin(v)) - 0.5, 0, 1)
    elif kind == 2:
        pattern = 0.5 + np.clip(3 * np.sin(u) * np.sin(v), -0.5, 0.5)
    elif kind == 3:
        pattern = noise(rng, shape, (max(1, height // 4), max(1, width // 4)))
    else:
        pattern = np.clip(0.5 + u * (period / (2 * math.pi * max(height, width))), 0, 1) * np.ones_like(y)
    return main + (other - main) * pattern
