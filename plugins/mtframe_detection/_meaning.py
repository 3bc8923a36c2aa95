"""Whether a box's four numbers mean what its format says: a corner and a size, two corners, a centre and a size."""

# Shapes: A boxes.

from __future__ import annotations

from typing import Literal

import numpy as np

from mtframe.kinds import Finding

Meaning = Literal["corners", "corner and size", "centre and size"]

# What may be found here, by name.
MEANINGS = ("boxes-like-centres", "boxes-like-corners", "boxes-like-fractions", "boxes-like-widths", "boxes-reach-out")

# Below, chance could tell anything.
_LEAST = 4

# Part of an image's side by which a box may reach out: tools round, and draw a little too far.
_SLACK = 0.01

# A meaning is refused where fewer boxes fit their images, if another one fits all of them.
_MOST_FIT = 0.9

# Part of all boxes: more of them that reach out are odd.
_FEW = 0.1

# What ends before this pixel is no box in pixels.
_FIRST_PIXELS = 2.0


@np.errstate(over="ignore", invalid="ignore")
def judge_boxes(boxes: np.ndarray, limits: np.ndarray, meant: Meaning, *, pixels: bool) -> list[Finding]:
    """What is odd about boxes as they are read, before they are clipped.

    The numbers of each are read in every way; a box is possible that has an area and does not reach out of its image.

    Args:
        boxes: (A, 4) XYXY, as the format means them.
        limits: (A, 2) width and height of each box's image, in the same unit.
        meant: What the format's numbers are.
        pixels: Whether they are in pixels; else in parts of the sides.
    """
    if not len(boxes):
        return []
    low, high = boxes[:, :2], boxes[:, 2:]
    if pixels:
        fractions = ((high <= _FIRST_PIXELS) & (limits > 8 * _FIRST_PIXELS)).all(axis=1)
        if len(boxes) >= _LEAST and fractions.mean() > 0.5:
            text = f"{fractions.sum()} of {len(boxes)} boxes look like parts of the image's sides, not pixels"
            return [Finding("boxes-like-fractions", "error", text)]
    first, second = {
        "corners": (low, high),
        "corner and size": (low, high - low),
        "centre and size": ((low + high) / 2, high - low),
    }[meant]
    readings: dict[Meaning, tuple[np.ndarray, np.ndarray]] = {
        "corners": (first, second),
        "corner and size": (first, first + second),
        "centre and size": (first - second / 2, first + second / 2),
    }
    fits = {name: _possible(*reading, limits) for name, reading in readings.items()}
    others = [name for name in readings if name != meant and fits[name].all()]
    if len(boxes) >= _LEAST and fits[meant].mean() < _MOST_FIT and others:
        name = (
            "boxes-like-" + {"corners": "corners", "corner and size": "widths", "centre and size": "centres"}[others[0]]
        )
        out = (~fits[meant]).sum()
        return [
            Finding(
                name, "error",
                f"{out} of {len(boxes)} boxes reach out of their image, and none would if the four numbers "
                f"were {others[0]}; expected {meant}",
            )
        ]  # fmt: skip
    # What has nothing inside is left out, and counted there.
    shown = (np.minimum(high, limits) > np.maximum(low, 0)).all(axis=1)
    out = int((shown & ~_inside(low, high, limits)).sum())
    if not out:
        return []
    text = f"{out} of {len(boxes)} boxes reach out of their image; they are clipped at its border"
    return [Finding("boxes-reach-out", "warning" if out > _FEW * len(boxes) else "note", text)]


def _possible(low: np.ndarray, high: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(A,) bool."""
    return np.asarray((high > low).all(axis=1)) & _inside(low, high, limits)


def _inside(low: np.ndarray, high: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(A,) bool."""
    slack = _SLACK * limits
    return np.asarray(((low >= -slack) & (high <= limits + slack)).all(axis=1))
