"""Draws a face: a head under a rotation, lit from one side, with features painted on its front."""

# Shapes: H height, W width of the head's window.

from __future__ import annotations

import math

import numpy as np

from mtframe.synthesis import Array, clutter, coverage, grid, noise, paint, random_colour

from ._features import (
    Front,
    feature_points,
    paint_brows,
    paint_eyes,
    paint_mouth,
    paint_nose,
    paint_occlusion,
    paint_skin,
)
from ._head import LONG, Surface, hair_shapes, head_shapes, rotation, surface
from ._person import Person, View

# Half the head's height, as a part of the image: the framing of funneled LFW.
HEAD = 0.265
# The window that is drawn around the head's centre, in head units: half its width, and up and down.
WINDOW_X, WINDOW_UP, WINDOW_DOWN = 1.15, 1.35, 1.45

HAIRS = np.array([[0.06, 0.05, 0.05], [0.20, 0.12, 0.08], [0.42, 0.25, 0.12], [0.74, 0.57, 0.33]], np.float32)


def render_face(person: Person, view: View, size: int, rng: np.random.Generator) -> Array:
    """Draws one image of a person.

    Args:
        person: Who.
        view: How.
        size: Side of the square image in pixels.
        rng: For what has no name: background, clothes, strands of hair, grain.

    Returns:
        (3, size, size) RGB, about 0..1.
    """
    image = clutter(rng, size, size, pieces=int(rng.integers(4, 14)))
    unit, centre_x, centre_y = _framing(view, size)
    _draw_shoulders(image, (grid(size, size)[1] - centre_x) / unit, (grid(size, size)[0] - centre_y) / unit, rng)
    rows, columns, y, x = _window(view, size)
    colour, alpha = _draw_head(person, view, x, y, rng)
    paint(image[:, rows, columns], alpha, colour)
    return _photograph(image, view, rng)


def face_landmarks(person: Person, view: View, size: int) -> Array:
    """Where the eyes, the tip of the nose and the corners of the mouth are drawn, to half a pixel.

    Returns:
        (5, 2) x and y in pixels: left eye, right eye, nose, left and right corner of the mouth; left is the picture's.
    """
    rows, columns, y, x = _window(view, size)
    seen = surface(head_shapes(person, view), rotation(view), x, y)
    head_x, head_y, head_z = seen.head
    # Features are painted from the front, on whatever of the head lies behind their x and y.
    beyond = np.where((seen.cover > 0.5) & (head_z > 0), 0, np.float32(np.inf))
    points = []
    for at_x, at_y in feature_points(person, view):
        distance = np.square(head_x - at_x) + np.square(head_y - at_y) + beyond
        row, column = np.unravel_index(distance.argmin(), distance.shape)
        points.append((columns.start + column + 0.5, rows.start + row + 0.5))
    return np.array(points)


def _framing(view: View, size: int) -> tuple[float, float, float]:
    """Pixels of a head unit, and where the head's centre is, x and y."""
    return HEAD * size * view.scale, size * (0.5 + view.shift_x), size * (0.5 + view.shift_y)


def _window(view: View, size: int) -> tuple[slice, slice, Array, Array]:
    """Rows and columns of the image around the head, and their pixels' y (H, 1) and x (1, W) in head units."""
    unit, centre_x, centre_y = _framing(view, size)
    left, right = max(0, round(centre_x - WINDOW_X * unit)), min(size, round(centre_x + WINDOW_X * unit))
    top, bottom = max(0, round(centre_y - WINDOW_UP * unit)), min(size, round(centre_y + WINDOW_DOWN * unit))
    y, x = grid(bottom - top, right - left)
    return slice(top, bottom), slice(left, right), (y + (top - centre_y)) / unit, (x + (left - centre_x)) / unit


def _draw_shoulders(image: Array, x: Array, y: Array, rng: np.random.Generator) -> None:
    distance = np.sqrt((x / rng.uniform(1.1, 1.5)) ** 2 + ((y - 1.8) / 0.75) ** 2) - 1
    cloth, other = random_colour(rng)[:, None, None], random_colour(rng)[:, None, None]
    texture = noise(rng, distance.shape, (int(rng.integers(1, 40)), int(rng.integers(1, 40))))
    paint(image, coverage(distance, 0.03), cloth + (other - cloth) * 0.6 * texture)


def _draw_head(person: Person, view: View, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Colour (3, H, W) and coverage (H, W)."""
    turned = rotation(view)
    skin = surface(head_shapes(person, view), turned, x, y)
    front = Front(*skin.head, pixel=float(x[0, 1] - x[0, 0]))
    hair = HAIRS[int(view.hair * len(HAIRS))] * np.float32(rng.uniform(0.8, 1.25))
    hair = hair + np.float32(max(0.0, view.grey) * 0.7) * (np.float32(0.6) - hair)

    albedo = paint_skin(person, front, hair, rng)
    paint_eyes(albedo, person, view, front)
    paint_brows(albedo, person, view, front, hair)
    paint_nose(albedo, person, front)
    paint_mouth(albedo, person, view, front)
    paint_occlusion(albedo, person, view, front, rng)
    colour = albedo * _light(skin, view)

    cap = surface(hair_shapes(person), turned, x, y)
    strands = 0.7 + 0.5 * noise(rng, cap.depth.shape, (6, 60))
    covered = _hair_cover(person, cap, rng) * cap.cover
    shine = hair[:, None, None] * _light(cap, view) * strands
    # Where both are seen the nearer one is; beyond the skin's outline there is only hair.
    paint(colour, covered * coverage(skin.depth - cap.depth, 0.05), shine)
    colour += (1 - skin.cover) * (shine - colour)
    return colour, np.maximum(skin.cover, covered)


def _hair_cover(person: Person, cap: Surface, rng: np.random.Generator) -> Array:
    """Where the shell of hair is hair: above the hairline, and lower behind the face, down to its length."""
    x, y, z = cap.head
    ragged = (noise(rng, y.shape, (10, 40)) - 0.5) * 0.12
    peak = person.hairline_peak * np.maximum(0, 0.3 - np.abs(x))
    long = person.hair_length > LONG
    line = person.hairline + peak + (3.0 if long else 0.9) * np.maximum(0, 0.5 - z) + ragged
    return coverage(np.maximum(y - line, y - (person.hair_length if long else 0.05)), 0.05)


def _light(seen: Surface, view: View) -> Array:
    """(3, H, W): Lambert's law for one lamp, over light from everywhere, mostly from above."""
    across, up = math.sin(view.light_azimuth), math.sin(view.light_elevation)
    towards = math.cos(view.light_azimuth) * math.cos(view.light_elevation)
    norm = math.hypot(across, up, towards)
    nx, ny, nz = seen.normal
    lamp = view.light_strength * np.maximum(0, (across * nx - up * ny + towards * nz) / norm)
    ambient = view.ambient * (0.85 - 0.25 * ny)
    warm = np.array([1 + view.warmth, 1 + view.tint, 1 - view.warmth], np.float32)[:, None, None]
    return warm * lamp + (2 - warm) * ambient


def _photograph(image: Array, view: View, rng: np.random.Generator) -> Array:
    """Exposure, colour cast, blur and grain of a camera."""
    cast = np.array([1 + view.warmth / 2, 1, 1 - view.warmth / 2], np.float32)[:, None, None]
    image = image * (view.exposure * cast)
    weight = max(0.0, view.blur) / 3
    if weight > 0:
        image[:, 1:-1] += weight * (image[:, 2:] + image[:, :-2] - 2 * image[:, 1:-1])
        image[:, :, 1:-1] += weight * (image[:, :, 2:] + image[:, :, :-2] - 2 * image[:, :, 1:-1])
    return image + view.grain * rng.standard_normal(image.shape, dtype=np.float32)
