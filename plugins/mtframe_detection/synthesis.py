"""Synthetic scenes in COCO's layout: textured shapes over clutter, partly hidden by one another."""

# Shapes: H height, W width.

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtframe.synthesis import (
    Array,
    check_least,
    clutter,
    coverage,
    grid,
    open_root,
    paint,
    random_colour,
    render_all,
    span,
    write_jpeg,
)

from ._shapes import CATEGORIES, DISTANCES, texture

ANNOTATIONS = "annotations"
# Streams of random numbers that must not run into one another, and where each split's image ids start.
_STREAMS = {"train": 0, "val": 1}
_FIRST_ID = {"train": 1, "val": 500_001}

MAX_OBJECTS = 3
# Diameter of a shape's circle, as a part of the image's side.
SMALLEST, LARGEST = 0.36, 0.66
# Largest turn either way, in radians.
TURN = 0.6
# A shape keeps at least this part of its pixels, whatever is drawn over it.
VISIBLE = 0.7
# Width of a shape's outline, as a part of its circle's radius.
OUTLINE = 0.1
# Parts of the images without any object, and with a crowd: many small shapes of one category under one box.
EMPTY, CROWDED = 0.03, 0.03


def synthesize_scenes(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    train: int = 2000,
    val: int = 300,
    size: int = 128,
    workers: int | None = None,
) -> dict[str, int]:
    """Renders scenes and writes them as COCO: `train2017`, `val2017` and `annotations/instances_*2017.json`.

    Category, texture, colour, place, size and rotation are drawn independently of one another. Boxes and
    areas are those of the visible pixels. The same options give the same bytes.

    Args:
        root: A new or empty folder, or one that an earlier call made, whose contents are then replaced.
        seed: Other seeds give other scenes.
        train: Number of images to train on.
        val: Number of images to evaluate on.
        size: Side of the square images in pixels.
        workers: Processes; None for one per processor.

    Returns:
        Numbers of `train` and `val` images, of `train_boxes` and `val_boxes` (crowds not counted), and of
        `categories`.

    Raises:
        RecipeError: An option is out of range, or `root` holds something else.
        DataError: `root` cannot be written.
    """
    check_least(seed=(seed, 0), train=(train, 1), val=(val, 1), size=(size, 64), workers=(workers, 1))
    contents = (ANNOTATIONS, "train2017", "val2017")
    root = open_root(root, "scenes", contents, {"seed": seed, "train": train, "val": val, "size": size})
    documents = {}
    for split, count in (("train", train), ("val", val)):
        (root / f"{split}2017").mkdir()
        render = partial(_write_image, root / f"{split}2017", split, size, seed)
        documents[split] = _document(split, render_all(render, count, workers), size)
    # What makes the data set complete comes last: a call that is stopped leaves nothing that could be read.
    (root / ANNOTATIONS).mkdir()
    for split, document in documents.items():
        (root / ANNOTATIONS / f"instances_{split}2017.json").write_text(json.dumps(document), encoding="utf-8")
    boxes = {
        f"{split}_boxes": sum(not annotation["iscrowd"] for annotation in document["annotations"])
        for split, document in documents.items()
    }
    return {"train": train, "val": val, **boxes, "categories": len(CATEGORIES)}


def _document(split: str, images: list[list[dict[str, Any]]], size: int) -> dict[str, Any]:
    first = _FIRST_ID[split]
    annotations = [{**things, "image_id": first + i} for i, image in enumerate(images) for things in image]
    return {
        "info": {"description": "synthetic scenes"},
        "licenses": [],
        "images": [
            {"id": first + i, "file_name": f"{first + i:012d}.jpg", "width": size, "height": size}
            for i in range(len(images))
        ],
        "annotations": [{"id": first + i, **annotation} for i, annotation in enumerate(annotations)],
        "categories": [
            {"id": category, "name": name, "supercategory": "shape"} for category, name in CATEGORIES.items()
        ],
    }


def _write_image(folder: Path, split: str, size: int, seed: int, index: int) -> list[dict[str, Any]]:
    image, annotations = render_scene(size, np.random.default_rng([seed, _STREAMS[split], index]))
    write_jpeg(folder / f"{_FIRST_ID[split] + index:012d}.jpg", image)
    return annotations


@dataclass
class _Placed:
    """A shape on the canvas: its category, the pixels still seen, and how many it had when it was drawn."""

    category: int
    visible: NDArray[np.bool_]
    whole: float


def render_scene(size: int, rng: np.random.Generator) -> tuple[Array, list[dict[str, Any]]]:
    """Draws one scene.

    Returns:
        The image, (3, size, size) RGB, about 0..1, and its annotations as COCO writes them, without ids.
    """
    image = clutter(rng, size, size, pieces=int(rng.integers(3, 10)))
    annotations = []
    if rng.random() < CROWDED:
        annotations.append(_crowd(image, rng))
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, MAX_OBJECTS + 1))
    placed: list[_Placed] = []
    for _ in range(count):
        category = int(rng.choice(list(CATEGORIES)))
        for _ in range(10):
            diameter = size * rng.uniform(SMALLEST, LARGEST)
            if _place(image, placed, category, diameter, rng.uniform(0.3 * diameter, size - 0.3 * diameter, 2), rng):
                break
    image += rng.uniform(0, 0.04) * rng.standard_normal(image.shape, dtype=np.float32)
    annotations += [_annotation(thing.category, thing.visible, crowd=False) for thing in placed]
    return image * rng.uniform(0.75, 1.2), annotations


def _place(
    image: Array,
    placed: list[_Placed],
    category: int,
    diameter: float,
    centre: NDArray[np.float64],
    rng: np.random.Generator,
) -> bool:
    """Draws a shape, unless too little of it or of another one would be seen."""
    size = image.shape[1]
    shape = _shape(size, category, diameter, centre, rng)
    shown = np.zeros((size, size), bool)
    shown[shape.window] = shape.mask > 0.5
    if shown.sum() < VISIBLE * shape.whole:
        return False
    if any((thing.visible & ~shown).sum() < VISIBLE * thing.whole for thing in placed):
        return False
    _draw(image, shape, rng)
    for thing in placed:
        thing.visible &= ~shown
    placed.append(_Placed(category, shown, shape.whole))
    return True


@dataclass
class _Shape:
    """A turned shape: coverage of all of it and of what its outline leaves, in a window of the image."""

    mask: Array
    filling: Array
    window: tuple[slice, slice]
    whole: float  # area in pixels, with what lies outside the image


def _shape(size: int, category: int, diameter: float, centre: NDArray[np.float64], rng: np.random.Generator) -> _Shape:
    radius, angle, stretch = diameter / 2, rng.uniform(-TURN, TURN), math.sqrt(rng.uniform(0.8, 1.25))
    cos, sin = math.cos(angle), math.sin(angle)
    side = math.ceil(2.4 * radius + 4)
    top, left = round(float(centre[1]) - side / 2), round(float(centre[0]) - side / 2)
    y, x = grid(side, side)
    x, y = (x + (left - float(centre[0]))) / radius, (y + (top - float(centre[1]))) / radius
    distance = DISTANCES[category]((cos * x + sin * y) * stretch, (cos * y - sin * x) / stretch)
    whole = float((distance < 0).sum())
    rows, columns = span(top, top + side, size), span(left, left + side, size)
    distance = distance[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    pixel = 1 / radius
    return _Shape(coverage(distance, pixel), coverage(distance + OUTLINE, pixel), (rows, columns), whole)


def _draw(image: Array, shape: _Shape, rng: np.random.Generator) -> None:
    """Paints the shape's outline and its texture, in colours unlike what lies behind."""
    part = image[:, *shape.window]
    behind = part.mean((1, 2))
    outline = max((random_colour(rng) for _ in range(6)), key=lambda colour: float(np.abs(colour - behind).sum()))
    paint(part, shape.mask, outline)
    paint(part, shape.filling, texture(rng, shape.mask.shape, away_from=behind))


def _crowd(image: Array, rng: np.random.Generator) -> dict[str, Any]:
    """Many small shapes of one category, next to one another, under one box."""
    size, category = image.shape[1], int(rng.choice(list(CATEGORIES)))
    place = rng.uniform(0.25, 0.75, 2)
    crowd = np.zeros((size, size), bool)
    for _ in range(int(rng.integers(10, 16))):
        centre = size * (place + rng.uniform(-0.17, 0.17, 2))
        shape = _shape(size, category, size * rng.uniform(0.09, 0.13), centre, rng)
        _draw(image, shape, rng)
        crowd[shape.window] |= shape.mask > 0.5
    return _annotation(category, crowd, crowd=True)


def _annotation(category: int, mask: NDArray[np.bool_], *, crowd: bool) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "category_id": category,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
        "iscrowd": int(crowd),
        "segmentation": _run_lengths(mask) if crowd else [],
    }


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths: columns first, starting with the number of zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:-1] != flat[:-2])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": [int(count) for count in counts]}
