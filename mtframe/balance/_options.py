"""Checks of options that are numbers."""

from __future__ import annotations

import math

from mtframe.errors import RecipeError


def checked(option: str, value: float, holds: bool, wanted: str) -> float:
    """The value of an option that is a number.

    Args:
        option: Its name.
        value: As given.
        holds: Whether it is what is wanted, as a comparison that is false for NaN: `mu > 0`, not `not mu <= 0`.
        wanted: In words, `above 0`.

    Raises:
        RecipeError: It is not, or it is not finite.
    """
    if not (holds and math.isfinite(value)):
        raise RecipeError(f"{option}: must be {'finite' if holds else wanted}, got {value:g}")
    return value
