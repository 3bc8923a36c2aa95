"""Synthetic scenes with exact masks: shapes over clutter, partly hidden by one another. Imports no torch."""

# Shapes: H height, W width.

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtframe.files import write_bytes
from mtframe.synthesis import (
    Array,
    check_least,
    clutter,
    coverage,
    grid,
    noise,
    open_root,
    paint,
    render_all,
    write_jpeg,
    write_text,
)

CLASSES_FILE, IMAGES, MASKS = "classes.txt", "images", "masks"
# Streams of random numbers that must not run into one another.
_STREAMS = {"train": 0, "val": 1}

# Shapes on a scene, each of another kind.
_MOST = 3
# Radius of the circle around a shape, as a part of the image's side.
_RADII = (0.18, 0.34)

# How much of its colour the ground loses.
_PALE = 0.8

# Signed distance of the point (x, y), y down, to a shape that just fits the unit circle; negative inside.
_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.9,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.7,
    "triangle": lambda x, y: np.maximum(y, math.sqrt(0.75) * np.abs(x) - 0.5 * y) - 0.5,
    "cross": lambda x, y: np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.28, np.maximum(np.abs(x), np.abs(y)) - 0.92),
}
CLASSES = ("ground", *_SHAPES)


def synthesize_scenes(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    train: int = 800,
    val: int = 200,
    size: int = 96,
    workers: int | None = None,
) -> dict[str, int]:
    """Renders scenes into `images/SPLIT` and their masks into `masks/SPLIT`, and writes `classes.txt`.

    On each up to three shapes lie over clutter, each of another kind, turned, in a colour and with a texture that say
    nothing of the kind. A pixel is of the uppermost shape that its centre is in, or else ground. The same options give
    the same bytes.

    Args:
        root: A new or empty folder, or one that an earlier call made, whose contents are then replaced.
        seed: Other seeds give other scenes.
        train: Number of images to train on.
        val: Number of images to evaluate on.
        size: Side of the square images in pixels.
        workers: Processes; None for one per processor.

    Returns:
        Numbers of `train` and `val` images and of `classes`.

    Raises:
        RecipeError: An option is out of range, or `root` holds something else.
        DataError: `root` cannot be written.
    """
    check_least(seed=(seed, 0), train=(train, 1), val=(val, 1), size=(size, 32), workers=(workers, 1))
    options = {"seed": seed, "train": train, "val": val, "size": size}
    root = open_root(root, "semantic masks", (CLASSES_FILE, IMAGES, MASKS), options)
    for split, count in (("train", train), ("val", val)):
        for folder in (IMAGES, MASKS):
            (root / folder / split).mkdir(parents=True)
        render_all(partial(_write, root, split, size, seed), count, workers)
    # What makes the data set complete comes last: a call that is stopped leaves nothing that could be read.
    write_text(root / CLASSES_FILE, "\n".join(CLASSES) + "\n")
    return {"train": train, "val": val, "classes": len(CLASSES)}


def render_scene(size: int, rng: np.random.Generator) -> tuple[Array, NDArray[np.uint8]]:
    """Draws one scene.

    Returns:
        The image, (3, size, size) RGB, about 0..1, and its mask, (size, size): places in `CLASSES`.
    """
    image = clutter(rng, size, size, pieces=int(rng.integers(1, 5)))
    # Pale, so that a small network finds the shapes soon; which is which takes longer.
    image += _PALE * (image.mean(0) - image)
    mask = np.zeros((size, size), np.uint8)
    kinds = list(_SHAPES)
    for kind in rng.permutation(len(kinds))[: rng.integers(1, _MOST + 1)]:
        distance = _placed(_SHAPES[kinds[kind]], size, rng)
        paint(image, coverage(distance), _texture(rng, size))
        mask[distance < 0] = 1 + kind
    image += rng.uniform(0, 0.04) * rng.standard_normal(image.shape, dtype=np.float32)
    return image * rng.uniform(0.75, 1.2), mask


def _placed(shape: Callable[[Array, Array], Array], size: int, rng: np.random.Generator) -> Array:
    """(size, size) signed distance in pixels to a shape at a random place, turned."""
    radius, angle = size * rng.uniform(*_RADII), rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle) / radius, math.sin(angle) / radius
    y, x = grid(size, size)
    x, y = x - rng.uniform(0.15, 0.85) * size, y - rng.uniform(0.15, 0.85) * size
    return shape(cos * x + sin * y, cos * y - sin * x) * radius


def _texture(rng: np.random.Generator, size: int) -> Array:
    """(3, size, size): a vivid colour, of any hue, in light and dark patches."""
    hue = rng.uniform(0, 2 * math.pi)
    colour = 0.5 + 0.45 * np.cos(hue + np.array([0, 2, 4]) * math.pi / 3)
    cells = int(rng.integers(4, 16))
    return colour[:, None, None].astype(np.float32) * (0.7 + 0.5 * noise(rng, (size, size), (cells, cells)))


def _write(root: Path, split: str, size: int, seed: int, index: int) -> None:
    image, mask = render_scene(size, np.random.default_rng([seed, _STREAMS[split], index]))
    write_jpeg(root / IMAGES / split / f"{index:06d}.jpg", image)
    content = io.BytesIO()
    Image.fromarray(mask).save(content, "PNG")
    write_bytes(root / MASKS / split / f"{index:06d}.png", content.getvalue(), flush=False)
