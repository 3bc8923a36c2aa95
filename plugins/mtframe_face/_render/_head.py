"""The head as a solid: ellipsoids that run into one another, seen along parallel rays."""

# Shapes: H height, W width of the window that is drawn.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtframe.synthesis import Array, coverage, span

from ._person import Person, View

# How softly ellipsoids run into one another, in head units.
BLEND = 0.06
# Hair that reaches further down than this hangs behind the face (height in head units).
LONG = 0.2

Triple = tuple[float, float, float]
Ellipsoid = tuple[Triple, Triple]  # centre and radii, axes along those of the head


@dataclass
class Surface:
    """What the camera sees of some ellipsoids, each (H, W).

    Attributes:
        cover: How much of a pixel they cover, 0..1.
        depth: Where, towards the camera; far behind where it does not.
        head: x, y and z of the hit in the frame of the head.
        normal: x, y and z of the surface's normal in the frame of the camera.
    """

    cover: Array
    depth: Array
    head: tuple[Array, Array, Array]
    normal: tuple[Array, Array, Array]


def rotation(view: View) -> NDArray[np.float64]:
    """(3, 3): a point in the frame of the head to the frame of the camera; nod, then turn, then tilt."""
    cx, sx = np.cos(view.pitch), np.sin(view.pitch)
    cy, sy = np.cos(view.yaw), np.sin(view.yaw)
    cz, sz = np.cos(view.roll), np.sin(view.roll)
    nod = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    tilt = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return tilt @ turn @ nod


def nose_base(person: Person) -> float:
    """Height at which the nose ends."""
    return person.eye_height + person.nose_length


def mouth_height(person: Person) -> float:
    """Height of the line between the lips, at rest."""
    base = nose_base(person)
    return base + person.mouth_drop * (person.jaw_length - base)


def head_shapes(person: Person, view: View) -> list[Ellipsoid]:
    """Skull, face, jaw, nose, ears and neck."""
    jaw = person.jaw_length + 0.05 * max(0.0, view.mouth_open)
    base, mouth = nose_base(person), mouth_height(person)
    bridge = (person.eye_height + base) / 2
    shapes: list[Ellipsoid] = [
        ((0, -0.22, -0.12), (person.head_width, 0.78, 0.84)),
        ((0, 0.12, 0.05), (person.cheek_width, 0.70, 0.62)),
        ((0, 0.50, 0.08), (person.jaw_width, jaw - 0.5, 0.50)),
        ((0, jaw - 0.15, 0.34), (person.chin_width, 0.15, 0.18 + person.chin_height)),
        ((0, mouth, 0.42), (0.25, 0.17, 0.20)),
        ((0, person.eye_height - 0.12, 0.55), (0.40, 0.09, 0.09 + person.brow_ridge)),
        ((0, bridge, 0.62), (person.nose_bridge, person.nose_length * 0.62, 0.15)),
        ((0, base - person.nose_tip * 0.7, 0.76), (person.nose_tip, person.nose_tip * 0.8, 0.13)),
        ((0, 1.15, -0.28), (0.40, 0.85, 0.34)),
    ]
    for side in (-1, 1):
        ear = side * (person.head_width * 0.97 + person.ear_flare)
        shapes += [
            ((side * 0.34, 0.22, 0.36), (0.20, 0.18, 0.13 + person.cheekbones)),
            ((side * person.nose_width * 0.72, base - 0.05, 0.66), (person.nose_width * 0.42, 0.06, 0.11)),
            ((ear, 0.10, -0.08), (0.075, person.ear_size, 0.12)),
        ]
    return shapes


def hair_shapes(person: Person) -> list[Ellipsoid]:
    """The cap over the skull and, for long hair, what hangs behind the face."""
    volume = person.hair_volume
    cap = ((0.0, -0.22, -0.14), (person.head_width + 0.03 + volume * 0.7, 0.80 + volume, 0.86 + volume * 0.5))
    if person.hair_length < LONG:
        return [cap]
    width = person.head_width + 0.05 + volume
    return [cap, ((0.0, 0.20, -0.25), (width, 0.75 + 0.35 * person.hair_length, 0.60))]


def surface(shapes: Sequence[Ellipsoid], turned: NDArray[np.float64], x: Array, y: Array) -> Surface:
    """Intersects parallel rays with ellipsoids and blends their fronts (a smooth maximum of depth).

    Args:
        shapes: In the frame of the head.
        turned: (3, 3) from `rotation`.
        x: (1, W) pixel centres in head units from the head's centre.
        y: (H, 1), likewise.
    """
    step = float(x[0, 1] - x[0, 0])
    cover = np.zeros((y.shape[0], x.shape[1]), np.float32)
    total = np.full_like(cover, math.exp(-2 / BLEND))
    for centre, radii in shapes:
        cx, cy, cz = (turned @ np.array(centre)).astype(np.float32)
        # In the frame of the camera the ellipsoid is p' M p = 1, and at most `reach` from its centre.
        m = ((turned / np.square(radii)) @ turned.T).astype(np.float32)
        reach = np.sqrt(np.square(turned * radii).sum(1)) + step
        columns = span((cx - reach[0] - x[0, 0]) / step, (cx + reach[0] - x[0, 0]) / step + 1, x.shape[1])
        rows = span((cy - reach[1] - y[0, 0]) / step, (cy + reach[1] - y[0, 0]) / step + 1, y.shape[0])
        dx, dy = x[:, columns] - cx, y[rows] - cy
        # Its outline is the ellipse d' Q d = 1, with Q the Schur complement of M's last entry.
        q = m[:2, :2] - np.outer(m[:2, 2], m[:2, 2]) / m[2, 2]
        squared = (q[0, 0] * dx) * dx + (q[1, 1] * dy) * dy + (2 * q[0, 1] * dx) * dy
        radial = np.sqrt((dx * dx + dy * dy) / squared) * (np.sqrt(squared) - 1)
        front = np.sqrt(np.maximum(1 - squared, 0) / m[2, 2]) - (m[0, 2] * dx + m[1, 2] * dy) / m[2, 2] + cz
        part = coverage(radial, step)
        total[rows, columns] += part * np.exp(front / BLEND)
        np.maximum(cover[rows, columns], part, out=cover[rows, columns])
    depth = np.log(total) * np.float32(BLEND)
    slope_y, slope_x = np.gradient(depth, np.float32(step))
    # At the outline the depth falls off a cliff; a bounded slope keeps the shading there.
    slope_x, slope_y = np.clip(slope_x, -3, 3), np.clip(slope_y, -3, 3)
    length = 1 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    r = turned.astype(np.float32)
    hx, hy, hz = (r[0, k] * x + r[1, k] * y + r[2, k] * depth for k in range(3))
    return Surface(cover, depth, (hx, hy, hz), (-slope_x * length, -slope_y * length, length))
