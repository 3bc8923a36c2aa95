"""A kind of target with some of its data, and the placements in which checks look at these."""

# Shapes: H and W of an image or an input.

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from mtframe.data import Placement, Sample
from mtframe.kinds import Target

from ._subject import SIZE
from ._violation import expect

if TYPE_CHECKING:
    from ._subject import Subject


@dataclass
class Setup:
    """A kind of target and some of its data.

    Attributes:
        target: The kind.
        samples: From a data set of it.
    """

    target: Target
    samples: list[Sample]

    @property
    def known(self) -> list[Sample]:
        """The samples of which something is known."""
        known = self.target.known(self.target.collate(self.labels)).tolist()
        return [sample for sample, its in zip(self.samples, known, strict=True) if its]

    @property
    def perfect(self) -> list[dict[str, Tensor]]:
        """The best prediction of each sample."""
        return [self.target.perfect(sample) for sample in self.samples]

    def perfect_in(self, sample: Sample, placement: Placement) -> dict[str, Tensor]:
        """The best prediction of one input, by the label that was placed in it."""
        placed = self.target.placed([(sample.target, placement)])
        return self.target.perfect(replace(sample, target=placed, size=placement.input_size))

    @property
    def labels(self) -> list[dict[str, Tensor]]:
        """The samples' labels in inputs of one size, as those of a batch are."""
        return [self.together(sample.target, sample.size) for sample in self.samples]

    def together(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """A label of an original of (height, width) in an input of the size that all have."""
        return self.placed((label, fitted(size, (SIZE, SIZE))))

    def placed(self, *parts: tuple[Mapping[str, Tensor], Placement]) -> dict[str, Tensor]:
        """The label of an input."""
        return self.target.placed(list(parts))


def make(subject: Subject) -> Setup:
    """A kind of target for the data set that is its companion."""
    companions = subject.kit.companions(subject)
    expect(not subject.required, f"option {', '.join(subject.required)} has no default, and a recipe can give none")
    return Setup(subject.build(info=companions.info), companions.samples)


def as_it_is(size: tuple[int, int]) -> Placement:
    """All of an image, neither scaled nor moved."""
    return Placement.scaled(size, size, (1.0, 1.0))


def whole(size: tuple[int, int]) -> dict[str, Placement]:
    """Where all of an image is seen, no smaller than it is."""
    same = as_it_is(size)
    larger = Placement.scaled(size, (2 * size[0] + 12, 2 * size[1] + 20), (2.0, 2.0), (8.0, 4.0))
    return {
        "as it is": same,
        "twice as large and padded": larger,
        "mirrored": same.flipped(),
        "twice as large, padded and mirrored": larger.flipped(),
    }


def quarter_turn(size: tuple[int, int]) -> Placement:
    """All of an image, turned by a quarter clockwise."""
    height, width = size
    return Placement(((0.0, -1.0, float(height)), (1.0, 0.0, 0.0)), size, (width, height))


def partial(size: tuple[int, int]) -> dict[str, Placement]:
    """Where a part of an image is seen, as in training."""
    height, width = size
    middle = Placement.scaled(size, size, (2.0, 2.0), (-width / 2, -height / 2))
    turn = math.radians(30)
    cosine, sine = math.cos(turn), math.sin(turn)
    x, y = width / 2, height / 2
    turned = ((cosine, -sine, x - cosine * x + sine * y), (sine, cosine, y - sine * x - cosine * y))
    return {
        "cropped": replace(middle, min_visible=0.3),
        "cropped and mirrored": replace(middle, min_visible=0.3).flipped(),
        "in a window": replace(middle, min_visible=0.3, window=(0.0, 0.0, width / 2, height / 2)),
        "turned": replace(as_it_is(size), matrix=turned, min_visible=0.3),
    }


def side_by_side(one: tuple[int, int], other: tuple[int, int]) -> tuple[Placement, Placement]:
    """Two images in windows of their own size."""
    size = max(one[0], other[0]), one[1] + other[1]
    left = Placement.scaled(one, size, (1.0, 1.0))
    right = Placement.scaled(other, size, (1.0, 1.0), (float(one[1]), 0.0))
    return (
        replace(left, window=(0.0, 0.0, float(one[1]), float(size[0]))),
        replace(right, window=(float(one[1]), 0.0, float(size[1]), float(size[0]))),
    )


def fitted(size: tuple[int, int], input_size: tuple[int, int]) -> Placement:
    """An image that is stretched over all of an input."""
    return Placement.scaled(size, input_size, (input_size[1] / size[1], input_size[0] / size[0]))
