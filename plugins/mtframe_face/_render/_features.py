"""Paints skin, eyes, brows, nose, mouth, beard and what covers them, in the frame of the head."""

# Shapes: H height, W width.

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mtframe.synthesis import Array, coverage, noise, paint

from ._head import mouth_height, nose_base
from ._person import Person, View

SKINS = np.array([[0.95, 0.78, 0.68], [0.84, 0.64, 0.51]], np.float32)
IRISES = np.array([[0.20, 0.12, 0.07], [0.32, 0.38, 0.22], [0.30, 0.46, 0.60]], np.float32)
BLUSH = np.array([1.0, 0.72, 0.7], np.float32)
LIPS = np.array([0.72, 0.36, 0.34], np.float32)


@dataclass
class Front:
    """Where pixels lie on the head: x, y, z (H, W) in head units, and the size of a pixel."""

    x: Array
    y: Array
    z: Array
    pixel: float
    aside: Array = field(init=False)

    def __post_init__(self) -> None:
        self.aside = np.abs(self.x)

    def window(self, aside: float, top: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns that show the part of the front with |x| < `aside` and y between the others."""
        part = (self.aside < aside) & (self.y > top) & (self.y < bottom) & (self.z > 0)
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        if not len(rows):
            return slice(0, 1), slice(0, 1)
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def __getitem__(self, window: tuple[slice, slice]) -> Front:
        return Front(self.x[window], self.y[window], self.z[window], self.pixel)

    def cover(self, distance: Array, softness: float = 0.0) -> Array:
        """Coverage of a shape; its outline runs through the whole head, but only the front wears it."""
        return coverage(np.maximum(distance, 0.05 - self.z), softness or 1.5 * self.pixel)

    def spot(self, x: float, y: float, width: float, height: float) -> Array:
        """A soft spot, 1 in the middle, on both sides of the face if `x` > 0."""
        across = (self.aside - x) * (1 / width)
        down = (self.y - y) * (1 / height)
        return np.maximum(0, 1 - 0.4 * (across * across + down * down)) ** 2 * (self.z > 0)


def feature_points(person: Person, view: View) -> list[tuple[float, float]]:
    """x and y on the front of the left eye, the right eye, the nose's tip, and the mouth's left and right corner."""
    middle, width = _mouth(person, view)
    eye, nose, corner = person.eye_height, nose_base(person) - 0.7 * person.nose_tip, middle - 0.049 * view.smile
    return [(-person.eye_spacing, eye), (person.eye_spacing, eye), (0.0, nose), (-width, corner), (width, corner)]


def paint_skin(person: Person, front: Front, hair: Array, rng: np.random.Generator) -> Array:
    """(3, H, W): skin with blush, folds, freckles, a mole, beard and moustache."""
    skin = SKINS[0] + (SKINS[1] - SKINS[0]) * np.float32(person.skin)
    whole = np.repeat(skin, front.x.size).reshape(3, *front.x.shape)
    whole *= 1 - 0.2 * coverage(person.jaw_length - 0.06 - front.y, 0.1) * (front.z < 0.3)
    base, mouth = nose_base(person), mouth_height(person)

    window = front.window(0.75, -0.1, person.jaw_length + 0.15)
    albedo, front = whole[:, *window], front[window]
    paint(albedo, 0.35 * front.spot(0.36, 0.32, 0.16, 0.14), skin * BLUSH)
    if person.freckles > 0:
        dots = noise(rng, front.x.shape, (60, 60)) > 0.7
        paint(albedo, person.freckles * dots * front.spot(0.2, 0.22, 0.25, 0.12), skin * np.float32(0.55))
    fold = np.abs(front.aside - 0.35 * (front.y - base) - (person.nose_width + 0.04)) - 0.012
    fold = np.maximum(fold, np.abs(front.y - (base + mouth) / 2) - (mouth - base) / 2)
    paint(albedo, person.folds * front.cover(fold, 0.05), skin * np.float32(0.5))
    if person.beard > 0:
        edge = mouth + 0.02 - 1.2 * np.maximum(0, front.aside - 0.2)
        growth = coverage(edge - front.y, 0.12) * coverage(front.y - person.jaw_length - 0.05, 0.1)
        paint(albedo, (0.3 + 0.6 * person.beard) * growth, hair)
    if person.moustache > 0:
        middle = base + 0.55 * (mouth - base)
        bar = np.maximum(np.abs(front.y - 0.25 * front.aside**2 - middle) - 0.04, front.aside - 0.24)
        paint(albedo, (0.4 + 0.5 * person.moustache) * front.cover(bar, 0.04), hair)
    mole = np.hypot(front.x - person.mole_x, front.y - person.mole_y) - 0.034
    paint(albedo, front.cover(mole, 0.02), skin * np.float32(0.3))
    return whole


def paint_eyes(albedo: Array, person: Person, view: View, front: Front) -> None:
    """Sockets, whites, irises and lids; both sides at once, as mirror images."""
    window = front.window(person.eye_spacing + 0.4, person.eye_height - 0.3, person.eye_height + 0.25)
    albedo, front = albedo[:, *window], front[window]
    width = person.eye_width
    height = width * person.eye_opening * view.eyelids
    out, down = _turned(front, person.eye_spacing, person.eye_height, person.eye_tilt)
    bow = 1 - (out / width) ** 2
    upper, lower = -0.75 * height * bow, 0.5 * height * bow
    white = front.cover(np.maximum(upper - down, down - lower))
    socket = front.spot(person.eye_spacing, person.eye_height - 0.02, 0.16, 0.12)
    paint(albedo, 0.3 * socket, (0.35, 0.2, 0.16))
    paint(albedo, white, (0.93, 0.92, 0.9))

    across = front.x - np.sign(front.x) * np.float32(person.eye_spacing) - 0.08 * view.gaze_x
    radius = np.hypot(across, front.y - (person.eye_height - 0.012 + 0.05 * view.gaze_y))
    position = person.iris * (len(IRISES) - 1)
    iris = [np.interp(position, range(len(IRISES)), channel) for channel in IRISES.T]
    paint(albedo, white * front.cover(radius - 0.062), iris)
    paint(albedo, white * front.cover(radius - 0.028), (0.02, 0.02, 0.02))
    glint = np.hypot(across + 0.02, front.y - (person.eye_height - 0.035)) - 0.013
    paint(albedo, white * front.cover(glint), (1.0, 1.0, 1.0))

    within = np.abs(out) - width * 1.04
    paint(albedo, 0.9 * front.cover(np.maximum(np.abs(down - upper) - 0.011, within)), (0.10, 0.06, 0.05))
    paint(albedo, 0.35 * front.cover(np.maximum(np.abs(down - lower) - 0.006, within)), (0.3, 0.16, 0.13))
    crease = np.abs(down - upper + (0.3 * height + 0.012)) - 0.005
    paint(albedo, 0.35 * front.cover(np.maximum(crease, within)), (0.3, 0.16, 0.12))


def paint_brows(albedo: Array, person: Person, view: View, front: Front, hair: Array) -> None:
    """Brows, in a darker tone of the hair."""
    height = person.eye_height - person.brow_gap - view.brow_raise
    window = front.window(person.eye_spacing + 0.4, height - 0.25, height + 0.2)
    albedo, front = albedo[:, *window], front[window]
    out, down = _turned(front, person.eye_spacing + 0.015, height, person.brow_tilt)
    along = out / person.brow_length
    thickness = person.brow_thickness * (1 - 0.5 * np.minimum(np.maximum(along, -0.2), 1))
    arc = np.abs(down + person.brow_arch * (1 - along**2)) - thickness
    brow = np.maximum(arc, np.abs(out) - person.brow_length)
    paint(albedo, 0.85 * front.cover(brow, 0.025), hair * np.float32(0.65))


def paint_nose(albedo: Array, person: Person, front: Front) -> None:
    """Nostrils and the shadow under the tip."""
    base, width = nose_base(person), person.nose_width
    window = front.window(0.3, base - 0.15, base + 0.2)
    albedo, front = albedo[:, *window], front[window]
    paint(albedo, 0.35 * front.spot(0.0, base + 0.03, width * 1.1, 0.04), (0.4, 0.22, 0.18))
    nostril = np.hypot((front.aside - width * 0.5) / 0.9, (front.y - base) / 0.5)
    paint(albedo, 0.8 * front.cover(nostril - width * 0.28, 0.03), (0.2, 0.08, 0.07))


def paint_mouth(albedo: Array, person: Person, view: View, front: Front) -> None:
    """Lips, and teeth behind them when the mouth is open."""
    opened, (middle, width) = max(0.0, view.mouth_open), _mouth(person, view)
    window = front.window(0.55, middle - 0.25, middle + 0.3)
    albedo, front = albedo[:, *window], front[window]
    across = (front.x / width) ** 2
    bow = np.maximum(0, 1 - across)
    line = middle + 0.07 * view.smile * (0.3 - across)
    gap = (0.055 * opened + 0.004) * bow
    dent = 1 - 0.35 * np.exp(-((front.x / 0.035) ** 2))
    top = line - gap - person.upper_lip * bow * dent
    bottom = line + gap + person.lower_lip * np.sqrt(bow)
    beyond = np.abs(front.x) - width
    chin = front.spot(0.0, middle + person.lower_lip + 0.07, 0.13, 0.03)
    paint(albedo, 0.35 * chin, (0.45, 0.25, 0.2))
    lips = np.maximum(np.maximum(top - front.y, front.y - bottom), beyond)
    paint(albedo, 0.85 * front.cover(lips, 2.5 * front.pixel), LIPS)
    inside = front.cover(np.maximum(np.abs(front.y - line) - gap, beyond))
    paint(albedo, inside, (0.25, 0.07, 0.07))
    teeth = np.maximum(front.y - line - 0.01, beyond + 0.04)
    paint(albedo, inside * front.cover(teeth), (0.9, 0.88, 0.84))


def paint_occlusion(albedo: Array, person: Person, view: View, front: Front, rng: np.random.Generator) -> None:
    """Now and then sunglasses, glasses, a mask or a microphone in front of the face."""
    out, down = front.aside - person.eye_spacing, front.y - (person.eye_height + 0.01)
    colour = rng.random(3, dtype=np.float32)
    lens = np.maximum(np.abs(out) - 0.16, np.abs(down) - rng.uniform(0.09, 0.14))
    bridge = np.maximum(np.abs(down + 0.03) - 0.012, front.aside - person.eye_spacing)
    if view.occlusion < 0.02:
        paint(albedo, front.cover(np.minimum(lens - 0.03, bridge)), colour * np.float32(0.2))
    elif view.occlusion < 0.12:
        rim = np.minimum(np.abs(lens - 0.02) - 0.012, np.where(lens < 0, 1, bridge))
        paint(albedo, front.cover(rim), colour * np.float32(0.4))
    elif view.occlusion < 0.14:
        top = nose_base(person) - 0.08
        cloth = np.maximum(top - front.y + 0.25 * front.aside**2, front.y - person.jaw_length)
        folds = 0.8 + 0.2 * noise(rng, front.x.shape, (12, 2))
        paint(albedo, front.cover(cloth), (0.5 + 0.5 * colour)[:, None, None] * folds)
    elif view.occlusion < 0.20:
        x, y = rng.uniform(-0.35, 0.35), mouth_height(person) + rng.uniform(0.05, 0.3)
        ball = np.hypot(front.x - x, front.y - y) - rng.uniform(0.14, 0.24)
        stick = np.maximum(np.abs(front.x - x) - 0.05, y - front.y)
        paint(albedo, coverage(np.minimum(ball, stick), 0.02), colour * np.float32(0.3))


def _mouth(person: Person, view: View) -> tuple[float, float]:
    """Height of the mouth's middle, and half its width."""
    opened = max(0.0, view.mouth_open)
    return mouth_height(person) + 0.03 * opened, person.mouth_width * (1 + 0.18 * max(0.0, view.smile))


def _turned(front: Front, x: float, y: float, tilt: float) -> tuple[Array, Array]:
    """Outwards and down from a point on either side of the face; `tilt` raises the outer end."""
    dx, dy = front.aside - x, front.y - y
    c, s = math.cos(tilt), math.sin(tilt)
    return dx * c - dy * s, dx * s + dy * c
