"""Colours for what is drawn on pictures, and for curves in plots."""

from __future__ import annotations

import colorsys

from mtframe.errors import one_line

# Okabe and Ito's colours (jfly.uni-koeln.de/color, 2008), which every kind of colour vision can tell apart; without
# black, and yellow last because it is faint on bright pictures.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")

# Thin lines of yellow cannot be seen on white.
_LINES = COLOURS[:-1]
_DASHES = ("-", "--", ":", "-.")

# From one hue to the next, as a part of the circle: numbers near each other get hues far apart.
_TURN = (5**0.5 - 1) / 2
# Neighbours also differ in lightness, which every kind of colour vision sees.
_LIGHTNESS = (0.36, 0.62, 0.48, 0.76)


def colour_of(number: int) -> str:
    """The colour of a class or the like, `#RRGGBB`: one of `COLOURS`, and for higher numbers others still."""
    if number < len(COLOURS):
        return COLOURS[number]
    rgb = colorsys.hls_to_rgb(number * _TURN % 1, _LIGHTNESS[number % len(_LIGHTNESS)], 0.65)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


def line_of(number: int) -> tuple[str, str]:
    """The colour and the dashes of a line among others on white, `#RRGGBB` and as matplotlib writes line styles."""
    return _LINES[number % len(_LINES)], _DASHES[number // len(_LINES) % len(_DASHES)]


def as_drawn(text: str) -> str:
    """What matplotlib must be given to draw a text as one line: it takes what is between dollars for a formula."""
    return one_line(text).replace("$", r"\$")
