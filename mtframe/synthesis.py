"""What data sets need to render themselves: a safe folder, worker processes, antialiasing, noise, clutter.

Imports no torch, so that worker processes start at once. Draw every image from a generator of its own, and
the bytes do not depend on the number of workers.
"""

# Shapes: H height, W width.

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from mtframe import files
from mtframe.errors import DataError, RecipeError
from mtframe.files import all_to_disk, is_partial, write_bytes
from mtframe.paths import regular

Array = NDArray[np.floating[Any]]
Result = TypeVar("Result")

MARKER = "synthesized.json"


def check_least(**limits: tuple[int | None, int]) -> None:
    """Refuses options that are too small.

    Args:
        limits: By option, the value that was given and the least that makes sense; None is always right.

    Raises:
        RecipeError: The first that is below.
    """
    for name, (value, least) in limits.items():
        if value is not None and value < least:
            raise RecipeError(f"{name}={value}: expected at least {least}")


def open_root(root: str | os.PathLike[str], maker: str, contents: Sequence[str], options: dict[str, int]) -> Path:
    """Makes the folder that is about to be filled, or empties one that an earlier call filled.

    Args:
        root: The folder. It must not exist, be empty, or have been made by the same maker.
        maker: The name of what is rendered; stands in the folder's marker file.
        contents: Files and folders in `root` that the maker writes, in the order to remove them: those that
            make a data set complete come first. Nothing else is ever removed.
        options: What it is made with, for the marker file.

    Raises:
        RecipeError: The folder holds something else.
        DataError: It cannot be written.
    """
    root = Path(root)
    marker = root / MARKER
    try:
        # A call that was killed as it wrote the marker has left a part of it.
        if root.exists() and not (root.is_dir() and all(map(is_partial, root.iterdir()))) and _made_by(marker) != maker:
            raise RecipeError(
                f"{root}: expected a new or empty folder, or one of synthesized {maker}, to be made anew; "
                f"this holds something else. Name another folder, or empty this one yourself."
            )
        root.mkdir(parents=True, exist_ok=True)
        files.write_text(marker, json.dumps({"made by": "mtframe", "what": maker, **options}, indent=1) + "\n")
        for name in contents:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be written ({error.strerror or error})") from error
    return root


def _made_by(marker: Path) -> str | None:
    try:
        return str(json.loads(regular(marker).read_text(encoding="utf-8"))["what"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def render_all(render: Callable[[int], Result], count: int, workers: int | None = None) -> list[Result]:
    """Calls `render(0) ... render(count - 1)`, spread over processes.

    Args:
        render: Draws an image, writes it, and returns what is to be remembered of it. Must be picklable: a
            function of a module, or `functools.partial` of one.
        count: How many.
        workers: Processes; None for one a processor. With 1 everything runs in this process.

    Returns:
        The results, in order. The images are on the disk.

    Raises:
        DataError: One cannot be written.
    """
    workers = min(workers or os.cpu_count() or 1, max(1, count // 16))
    with _incomplete():
        if workers <= 1:
            results = [render(index) for index in range(count)]
        else:
            # spawn: forking a process that has threads (torch's, the data loader's) can hang it.
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                results = list(pool.map(render, range(count), chunksize=min(32, count // workers)))
    # Before what makes the data set complete is written.
    all_to_disk()
    return results


def write_text(path: Path, text: str) -> None:
    """Writes a list, a table or annotations, as UTF-8. Raises DataError."""
    with _incomplete():
        files.write_text(path, text)


@contextmanager
def _incomplete() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataError(f"{where}cannot be written ({error.strerror or error}); the data is incomplete") from error


def write_jpeg(path: Path, image: Array) -> None:
    """Writes a (3, H, W) RGB image, 0..1, with quality 90; values outside are clipped.

    Of one that `render_all` renders, the file is on the disk when that returns.
    """
    pixels = (np.clip(image, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    write_bytes(path, simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.transpose(1, 2, 0)), quality=90), flush=False)


def coverage(distance: Array, softness: float = 1.0) -> Array:
    """How much of each pixel a shape covers, 0..1: analytic antialiasing.

    Args:
        distance: Signed distance to the shape's edge, negative inside.
        softness: Width of the edge, in the unit of `distance`; one pixel gives a sharp antialiased edge.
    """
    # Faster than np.clip on small arrays.
    return np.minimum(np.maximum(np.float32(0.5) - distance * np.float32(1 / softness), 0), 1)


def paint(image: Array, mask: Array, colour: Array | Sequence[float]) -> None:
    """Blends colour, (3,) or (3, H, W), into a (3, H, W) image in place, weighted by an (H, W) mask, 0..1."""
    for plane, value in zip(image, np.asarray(colour, np.float32), strict=True):
        plane += mask * (value - plane)


def random_colour(rng: np.random.Generator) -> Array:
    """(3,) RGB, 0..1, from grey to vivid."""
    colour = rng.random(3, dtype=np.float32)
    return colour.mean() + rng.random(dtype=np.float32) * (colour - colour.mean())


def noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int]) -> Array:
    """Smooth random (H, W) texture in 0..1: random values on (rows, columns) of `cells`, interpolated."""
    height, width = shape
    values = rng.random((cells[0] + 1, cells[1] + 1), dtype=np.float32)
    row, down = _interpolation(height, cells[0])
    column, right = _interpolation(width, cells[1])
    rows = values[row] + (values[row + 1] - values[row]) * down[:, None]
    return rows[:, column] + (rows[:, column + 1] - rows[:, column]) * right


def _interpolation(length: int, cells: int) -> tuple[NDArray[np.intp], Array]:
    position = np.linspace(0, cells, length, endpoint=False, dtype=np.float32)
    index = position.astype(np.intp)
    fraction = position - index
    return index, fraction * fraction * (3 - 2 * fraction)


def grid(height: int, width: int) -> tuple[Array, Array]:
    """Pixel centres: y of shape (H, 1) and x of shape (1, W), to be broadcast."""
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)
    return y, x


def clutter(rng: np.random.Generator, height: int, width: int, pieces: int) -> Array:
    """A busy background, (3, H, W) in 0..1: uneven colour, then blobs, bars and lines over one another."""
    first, second = random_colour(rng)[:, None, None], random_colour(rng)[:, None, None]
    cells = int(rng.integers(1, 7))
    image = first + (second - first) * noise(rng, (height, width), (cells, cells))
    for _ in range(pieces):
        _paint_piece(image, rng)
    fine = noise(rng, (height, width), (height // 3, width // 3)) - np.float32(0.5)
    image += np.float32(rng.uniform(0, 0.2)) * fine
    return image


def _paint_piece(image: Array, rng: np.random.Generator) -> None:
    height, width = image.shape[1:]
    side, angle, kind = max(height, width), rng.uniform(0, np.pi), rng.integers(3)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    # Longer than wide: none looks like a square or a disc, which may be what a detector is to find.
    thickness = side * (rng.uniform(0.005, 0.015) if kind == 0 else rng.uniform(0.03, 0.12))
    length = side * rng.uniform(0.1, 0.5) if kind == 0 else thickness * rng.uniform(2, 5)
    centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
    reach = 1.3 * np.hypot(thickness, length) + 2
    rows, columns = (
        span(centre_y - reach, centre_y + reach, height),
        span(centre_x - reach, centre_x + reach, width),
    )
    y, x = grid(rows.stop, columns.stop)
    dx, dy = x[:, columns] - np.float32(centre_x), y[rows] - np.float32(centre_y)
    across, along = np.abs(cos * dx + sin * dy), np.abs(cos * dy - sin * dx)
    if kind == 1:  # a blob
        waves = noise(rng, across.shape, (8, 8)) - np.float32(0.5)
        ratio = np.sqrt((across / np.float32(thickness)) ** 2 + (along / np.float32(length)) ** 2)
        distance = (ratio - 1 - np.float32(0.5) * waves) * np.float32(thickness)
    else:
        distance = np.maximum(across - np.float32(thickness), along - np.float32(length))
    opacity = np.float32(rng.uniform(0.5, 1))
    paint(image[:, rows, columns], opacity * coverage(distance, rng.choice([1.0, 3.0])), random_colour(rng))


def span(low: float, high: float, count: int) -> slice:
    """The pixels from `low` to `high` that an axis of `count` pixels has; at least one."""
    first = min(max(math.floor(low), 0), count - 1)
    return slice(first, max(min(math.ceil(high), count), first + 1))
