"""Rendering made-up scenes: the class is in the layout, colours say nothing. Imports no torch."""

# Shapes: H height, W width.

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtframe.synthesis import Array, coverage, grid, noise, paint, random_colour

# Highest and lowest horizon, as parts of the image's height from its top; largest tilt of the camera in degrees.
HORIZON = (0.38, 0.68)
TILT = 12.0
# How often each attribute applies.
OFTEN = {"sun": 0.4, "birds": 0.4, "fence": 0.4}


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be seen, and what a label file tells of it.

    Attributes:
        name: Its class, one of `SCENES`.
        horizon: Height of the horizon in the middle, as a part of the image's height from its top.
        tilt: How far the camera is turned, in degrees; positive where the horizon falls to the right.
        attributes: Which of `OFTEN` apply.
    """

    name: str
    horizon: float
    tilt: float
    attributes: frozenset[str]

    @classmethod
    def draw(cls, name: str, rng: np.random.Generator) -> Scene:
        """A random scene of a class; everything else is independent of it."""
        present = frozenset(thing for thing, part in OFTEN.items() if rng.random() < part)
        return cls(name, rng.uniform(*HORIZON), rng.uniform(-TILT, TILT), present)


@dataclass(slots=True)
class _Canvas:
    """An image, and where its pixels are in the camera's frame, in image sides: right of the middle, below the
    horizon. `pixel` is a pixel's size."""

    image: Array
    right: Array
    down: Array
    pixel: float
    rng: np.random.Generator

    def fill(self, distance: Array, colour: Array | None = None) -> None:
        """Paints where a signed distance is negative, in a colour unlike what is there."""
        mask = coverage(distance, self.pixel)
        paint(self.image, mask, self.colour(mask) if colour is None else colour)

    def colour(self, mask: Array) -> Array:
        """A random colour, the one of five least like what the mask covers now."""
        behind = (self.image * mask).sum((1, 2)) / max(float(mask.sum()), 1e-6)
        offered = [random_colour(self.rng) for _ in range(5)]
        return max(offered, key=lambda colour: float(np.abs(colour - behind).sum()))


def render_scene(scene: Scene, size: int, rng: np.random.Generator) -> Array:
    """Draws a scene.

    Args:
        scene: What is to be seen.
        size: Side of the square image in pixels.
        rng: Of everything else: colours, numbers and places of things.

    Returns:
        (3, size, size) RGB, about 0..1.
    """
    y, x = grid(size, size)
    x, y = x / size - 0.5, y / size - scene.horizon
    turn = math.radians(scene.tilt)
    right, down = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    sky = random_colour(rng)[:, None, None] + 0.25 * (noise(rng, (size, size), (2, 2)) - 0.5)
    canvas = _Canvas(sky, right, down, 1 / size, rng)
    ground = canvas.colour(coverage(-down, 1 / size))[:, None, None] + 0.3 * (noise(rng, (size, size), (9, 5)) - 0.5)
    paint(canvas.image, coverage(-down, 1 / size), ground)
    SCENES[scene.name](canvas)
    for thing, draw in (("sun", _sun), ("birds", _birds), ("fence", _fence)):
        if thing in scene.attributes:
            draw(canvas)
    image = canvas.image + rng.uniform(0.01, 0.06) * rng.standard_normal(canvas.image.shape, dtype=np.float32)
    return image * rng.uniform(0.75, 1.2)


def _coast(canvas: _Canvas) -> None:
    """Waves, closer together the farther away, and a beach that runs into the picture."""
    rng = canvas.rng
    below = np.maximum(canvas.down, 1e-3)
    waves = np.sin(rng.uniform(9, 13) * np.log(below) + 3 * np.sin(rng.uniform(4, 9) * canvas.right))
    canvas.fill(np.maximum(-canvas.down, 0.02 * (0.4 - waves)))
    slope, start = rng.choice([-1, 1]) * rng.uniform(0.6, 1.2), rng.uniform(0.1, 0.25)
    curve = 0.04 * np.sin(12 * canvas.right + rng.uniform(0, 6))
    canvas.fill(start + slope * canvas.right + curve - canvas.down)


def _mountains(canvas: _Canvas) -> None:
    """Two ranges of pointed peaks."""
    for height in (0.34, 0.2):
        peaks = canvas.rng.uniform(-0.6, 0.6, 4)
        tops = height * canvas.rng.uniform(0.7, 1.1, 4)
        steep = canvas.rng.uniform(0.9, 1.6, 4)
        skyline = np.max([t - s * np.abs(canvas.right - p) for p, t, s in zip(peaks, tops, steep, strict=True)], axis=0)
        canvas.fill(np.maximum(-canvas.down - skyline, canvas.down) / 1.6)


def _forest(canvas: _Canvas) -> None:
    """Trunks that reach beyond the picture's top, the near ones thicker."""
    for near in np.sort(canvas.rng.uniform(0, 1, 9)):
        place, half = canvas.rng.uniform(-0.6, 0.6), 0.01 + 0.03 * near
        lean = canvas.rng.uniform(-0.06, 0.06) * canvas.down
        canvas.fill(np.maximum(np.abs(canvas.right - place - lean) - half, canvas.down - 0.05 - 0.3 * near))


def _city(canvas: _Canvas) -> None:
    """Blocks of unequal height side by side, with windows."""
    left = -0.75
    while left < 0.75:
        width, height = canvas.rng.uniform(0.1, 0.22), canvas.rng.uniform(0.1, 0.42)
        middle = left + width / 2
        across = np.abs(canvas.right - middle) - width / 2 + 0.005
        block = np.maximum(across, np.maximum(-canvas.down - height, canvas.down - 0.02))
        canvas.fill(block)
        windows = np.sin((canvas.right - left) * 2 * math.pi / 0.05) + np.sin(canvas.down * 2 * math.pi / 0.06)
        canvas.fill(np.maximum(block + 0.012, 0.02 * (0.6 - windows)))
        left += width


def _to_vanishing_point(canvas: _Canvas) -> Array:
    """Where lines that run away from the camera lie: their distance to the right, in units of depth."""
    shift = canvas.rng.uniform(-0.2, 0.2)
    return (canvas.right - shift) / np.maximum(canvas.down, 1e-3)


def _road(canvas: _Canvas) -> None:
    """A road to the horizon with a broken line in its middle."""
    across, below = _to_vanishing_point(canvas), np.maximum(canvas.down, 1e-3)
    half = canvas.rng.uniform(0.5, 0.9)
    centre = canvas.rng.uniform(-0.5, 0.5)
    road = np.maximum((np.abs(across - centre) - half) * below, -canvas.down)
    canvas.fill(road)
    dashes = np.sin(canvas.rng.uniform(2.5, 4) / below)
    canvas.fill(np.maximum((np.abs(across - centre) - 0.1 * half) * below, np.maximum(-canvas.down, -0.02 * dashes)))


def _field(canvas: _Canvas) -> None:
    """Furrows to the horizon."""
    across, below = _to_vanishing_point(canvas), np.maximum(canvas.down, 1e-3)
    furrows = np.sin(across * canvas.rng.uniform(7, 11) + canvas.rng.uniform(0, 6))
    canvas.fill(np.maximum(-canvas.down, -0.15 * below * furrows))


def _hills(canvas: _Canvas) -> None:
    """Two ranges of rounded hills."""
    for height in (0.2, 0.1):
        waves = [np.sin(canvas.right * canvas.rng.uniform(5, 9) + canvas.rng.uniform(0, 6)) for _ in range(2)]
        skyline = height * (1 + 0.35 * (waves[0] + waves[1]))
        canvas.fill(np.maximum(-canvas.down - skyline, canvas.down))


def _bridge(canvas: _Canvas) -> None:
    """A deck on arches, from one side to the other."""
    height, period = canvas.rng.uniform(0.16, 0.26), canvas.rng.uniform(0.24, 0.4)
    place = (canvas.right + canvas.rng.uniform(0, period)) % period - period / 2
    arch = np.hypot(place, np.minimum(canvas.down + height - 0.45 * period - 0.02, 0)) - 0.4 * period
    deck = np.maximum(-canvas.down - height, canvas.down - 0.06)
    canvas.fill(np.maximum(deck, -arch))


def _sun(canvas: _Canvas) -> None:
    x, y = canvas.rng.uniform(-0.4, 0.4), canvas.rng.uniform(-0.36, -0.24)
    canvas.fill(np.hypot(canvas.right - x, canvas.down - y) - canvas.rng.uniform(0.06, 0.1))


def _birds(canvas: _Canvas) -> None:
    """A flock, each a flat V."""
    x, y, ink = canvas.rng.uniform(-0.3, 0.3), canvas.rng.uniform(-0.32, -0.16), None
    for _ in range(int(canvas.rng.integers(4, 7))):
        dx, dy = canvas.rng.uniform(-0.2, 0.2), canvas.rng.uniform(-0.08, 0.08)
        across = np.abs(canvas.right - x - dx)
        wings = np.maximum(np.abs(canvas.down - y - dy + 0.5 * across) - 0.012, across - 0.05)
        ink = canvas.colour(coverage(wings - 0.02, canvas.pixel)) if ink is None else ink
        canvas.fill(wings, ink)


def _fence(canvas: _Canvas) -> None:
    """Posts and two rails in the foreground."""
    top, gap = canvas.rng.uniform(0.16, 0.22), canvas.rng.uniform(0.12, 0.2)
    posts = np.abs(canvas.right % gap - gap / 2) - 0.014
    rails = np.minimum(np.abs(canvas.down - top - 0.025), np.abs(canvas.down - top - 0.07)) - 0.009
    canvas.fill(np.maximum(np.minimum(posts, rails), np.abs(canvas.down - top - 0.05) - 0.06))


SCENES: dict[str, Callable[[_Canvas], None]] = {
    "bridge": _bridge,
    "city": _city,
    "coast": _coast,
    "field": _field,
    "forest": _forest,
    "hills": _hills,
    "mountains": _mountains,
    "road": _road,
}
