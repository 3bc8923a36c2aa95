"""Who is drawn and how: what stays with a person, and what changes from image to image."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np

# Lengths are in the frame of the head: x to the image's right, y down, z towards the camera; the chin is near
# y = 1, the crown near y = -1.


def _between(low: float, high: float) -> Any:
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class _Drawn:
    """Numbers, each drawn between the limits that stand beside its name."""

    spread: ClassVar[float] = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """From a symmetric beta distribution: a spread of 1 is uniform, less prefers the limits."""
        drawn = {}
        for number in fields(cls):
            low, high = number.metadata["range"]
            drawn[number.name] = float(low + (high - low) * rng.beta(cls.spread, cls.spread))
        return cls(**drawn)


@dataclass(frozen=True)
class Person(_Drawn):
    """What stays with a person: the shape of the face. The colour of hair and clothes does not."""

    # People who are far from the average are easier to tell apart.
    spread: ClassVar[float] = 0.4

    head_width: float = _between(0.58, 0.78)
    cheek_width: float = _between(0.52, 0.66)
    cheekbones: float = _between(0.0, 0.09)
    jaw_width: float = _between(0.32, 0.62)
    jaw_length: float = _between(0.84, 1.10)
    chin_width: float = _between(0.12, 0.30)
    chin_height: float = _between(0.04, 0.14)
    brow_ridge: float = _between(0.0, 0.08)

    eye_spacing: float = _between(0.235, 0.375)
    eye_height: float = _between(-0.08, 0.06)
    eye_width: float = _between(0.095, 0.175)
    eye_opening: float = _between(0.38, 0.80)
    eye_tilt: float = _between(-0.28, 0.28)
    iris: float = _between(0.0, 1.0)
    brow_gap: float = _between(0.10, 0.22)
    brow_length: float = _between(0.14, 0.25)
    brow_thickness: float = _between(0.012, 0.07)
    brow_tilt: float = _between(-0.30, 0.30)
    brow_arch: float = _between(0.0, 0.09)

    nose_length: float = _between(0.26, 0.48)
    nose_width: float = _between(0.065, 0.185)
    nose_tip: float = _between(0.07, 0.13)
    nose_bridge: float = _between(0.04, 0.09)

    mouth_drop: float = _between(0.28, 0.48)
    mouth_width: float = _between(0.14, 0.35)
    upper_lip: float = _between(0.018, 0.075)
    lower_lip: float = _between(0.03, 0.095)
    folds: float = _between(0.0, 0.5)

    ear_size: float = _between(0.10, 0.27)
    ear_flare: float = _between(-0.06, 0.07)
    skin: float = _between(0.0, 1.0)
    hairline: float = _between(-0.72, -0.36)
    hairline_peak: float = _between(-0.5, 0.5)
    hair_volume: float = _between(0.02, 0.24)
    hair_length: float = _between(-0.2, 1.2)
    beard: float = _between(-1.2, 1.0)
    moustache: float = _between(-1.2, 1.0)
    mole_x: float = _between(-0.45, 0.45)
    mole_y: float = _between(0.15, 0.75)
    freckles: float = _between(-1.0, 1.0)


@dataclass(frozen=True)
class View(_Drawn):
    """What changes from image to image: pose, light, expression, framing, camera."""

    yaw: float = _between(-0.26, 0.26)
    pitch: float = _between(-0.14, 0.14)
    roll: float = _between(-0.10, 0.10)
    scale: float = _between(0.94, 1.07)
    shift_x: float = _between(-0.02, 0.02)
    shift_y: float = _between(-0.02, 0.02)

    light_azimuth: float = _between(-0.9, 0.9)
    light_elevation: float = _between(-0.1, 1.0)
    light_strength: float = _between(0.3, 0.65)
    ambient: float = _between(0.45, 0.72)
    warmth: float = _between(-0.18, 0.18)
    tint: float = _between(-0.07, 0.07)
    exposure: float = _between(0.8, 1.25)

    smile: float = _between(-0.3, 0.8)
    mouth_open: float = _between(-0.8, 0.8)
    brow_raise: float = _between(-0.03, 0.05)
    eyelids: float = _between(0.75, 1.1)
    gaze_x: float = _between(-0.5, 0.5)
    gaze_y: float = _between(-0.25, 0.25)

    hair: float = _between(0.0, 1.0)
    grey: float = _between(-2.0, 1.0)
    blur: float = _between(-1.0, 1.0)
    grain: float = _between(0.0, 0.035)
    occlusion: float = _between(0.0, 1.0)
