"""Synthetic scenes: in a folder for each class, or in a csv file with attributes and numbers."""

from __future__ import annotations

import csv
import io
import os
from functools import partial
from pathlib import Path

import numpy as np

from mtframe.synthesis import check_least, open_root, render_all, write_jpeg, write_text

from .rendering import OFTEN, SCENES, Scene, render_scene

SPLITS = ("train", "val")
TABLE, IMAGES, PARTIAL = "labels.csv", "images", ".partial"
# Part of the cells of the csv file that are left empty.
EMPTY = 0.1
# Streams of random numbers that must not run into one another.
_VIEW, _CELLS = range(2)


def synthesize_folders(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    train: int = 1600,
    val: int = 400,
    size: int = 96,
    workers: int | None = None,
) -> dict[str, int]:
    """Renders scenes of eight classes into `train/CLASS` and `val/CLASS`.

    The class is in the layout: colours, horizon, tilt of the camera, sun, birds and fences are independent of it.
    The same options give the same bytes.

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
    check_least(
        seed=(seed, 0), train=(train, len(SCENES)), val=(val, 1), size=(size, 32), workers=(workers, 1)
    )  # fmt: skip
    options = {"seed": seed, "train": train, "val": val, "size": size}
    root = open_root(root, "scene folders", (*SPLITS, PARTIAL), options)
    for split, count in (("train", train), ("val", val)):
        for name in SCENES:
            (root / PARTIAL / split / name).mkdir(parents=True)
        first = 0 if split == "train" else train
        render_all(partial(_write_in_folder, root / PARTIAL / split, first, size, seed), count, workers)
    # Last: a call that is stopped leaves no images where they are looked for.
    for split in SPLITS:
        (root / PARTIAL / split).rename(root / split)
    (root / PARTIAL).rmdir()
    return {"train": train, "val": val, "classes": len(SCENES)}


def synthesize_table(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    train: int = 1600,
    val: int = 400,
    size: int = 96,
    workers: int | None = None,
) -> dict[str, int]:
    """Renders the same scenes into `images` and describes them in `labels.csv`, a tenth of whose cells is empty.

    Columns: `file`, `split`, `scene` (one of eight), `sun`, `birds` and `fence` (0 or 1), `horizon` (its height
    in the middle, 0 at the top and 1 at the bottom) and `tilt` (of the camera, in degrees).

    Args:
        root: A new or empty folder, or one that an earlier call made, whose contents are then replaced.
        seed: Other seeds give other scenes.
        train: Number of images to train on.
        val: Number of images to evaluate on.
        size: Side of the square images in pixels.
        workers: Processes; None for one per processor.

    Returns:
        Numbers of `train` and `val` images and of `empty_cells`.

    Raises:
        RecipeError: An option is out of range, or `root` holds something else.
        DataError: `root` cannot be written.
    """
    check_least(
        seed=(seed, 0), train=(train, len(SCENES)), val=(val, 1), size=(size, 32), workers=(workers, 1)
    )  # fmt: skip
    options = {"seed": seed, "train": train, "val": val, "size": size}
    root = open_root(root, "scene table", (TABLE, IMAGES), options)
    (root / IMAGES).mkdir()
    scenes = render_all(partial(_write_in_table, root / IMAGES, size, seed), train + val, workers)
    empty = np.random.default_rng([seed, _CELLS]).random((len(scenes), 3 + len(OFTEN))) < EMPTY
    # The first of each class keeps its name: a class that no training row names would be an error.
    empty[: len(SCENES), 0] = False
    rows = []
    for index, scene in enumerate(scenes):
        flags = [str(int(thing in scene.attributes)) for thing in OFTEN]
        cells = [scene.name, *flags, f"{scene.horizon:.4f}", f"{scene.tilt:.2f}"]
        known = ["" if hidden else cell for cell, hidden in zip(cells, empty[index], strict=True)]
        rows.append([f"{IMAGES}/{index:06d}.jpg", SPLITS[index >= train], *known])
    # Last: a call that is stopped leaves nothing that could be read.
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([["file", "split", "scene", *OFTEN, "horizon", "tilt"], *rows])
    write_text(root / TABLE, table.getvalue())
    return {"train": train, "val": val, "empty_cells": int(empty.sum())}


def _draw(index: int, size: int, seed: int, path: Path) -> Scene:
    """Writes image `index`; classes take turns."""
    rng = np.random.default_rng([seed, _VIEW, index])
    scene = Scene.draw(list(SCENES)[index % len(SCENES)], rng)
    write_jpeg(path, render_scene(scene, size, rng))
    return scene


def _write_in_folder(folder: Path, first: int, size: int, seed: int, index: int) -> None:
    name = list(SCENES)[(first + index) % len(SCENES)]
    _draw(first + index, size, seed, folder / name / f"{first + index:06d}.jpg")


def _write_in_table(folder: Path, size: int, seed: int, index: int) -> Scene:
    return _draw(index, size, seed, folder / f"{index:06d}.jpg")
