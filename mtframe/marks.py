"""How labels and predictions are drawn: marks, which are values and no pixels.

Kinds of target give them; `mtframe.drawing` draws them on a picture, and whatever else shows them can do it in its own
way. Coordinates are pixels of the picture that the marks are for. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The number of a colour of `mtframe.palette`; equal numbers look alike. None is grey: what is left aside.
Colour = int | None


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a label.

    Attributes:
        corners: XYXY.
        text: Its label; empty for none.
        colour: Its colour.
        score: How sure it is, 0..1; None for what is known. Marks below a threshold are not drawn.
    """

    corners: tuple[float, float, float, float]
    text: str = ""
    colour: Colour = 0
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A dot with a label. Attributes as of `Box`; `at` is (x, y)."""

    at: tuple[float, float]
    text: str = ""
    colour: Colour = 0
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Polyline:
    """Straight lines from point to point, closed or open. Attributes as of `Box`; `points` are (x, y) each."""

    points: Sequence[tuple[float, float]]
    closed: bool = False
    text: str = ""
    colour: Colour = 0
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Mask:
    """Regions, one or many: a number for each pixel of the picture.

    Attributes:
        values: (H, W), whole numbers.
        names: By number, the region's name; pixels of other numbers stay as they are.
        colours: By number, the region's colour; the number itself where it is left out.
    """

    values: Tensor
    names: dict[int, str]
    colours: dict[int, Colour] | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A line on the whole picture, below it."""

    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A value of the whole picture, below it: a name, its value as text, and a bar.

    Attributes:
        name: Of the value.
        value: As it is written.
        part: Length of the bar as a part of a full one, 0..1; None for no bar.
    """

    name: str
    value: str
    part: float | None = None


Mark = Box | Point | Polyline | Mask | Text | Bar
