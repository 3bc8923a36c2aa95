"""Every transform says where an image went, and its pixels are there: a bright dot lies where its placement has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtframe.data import Inputs, Placement, Sample
from mtframe.kinds import Transform
from mtframe_classification.image_crop import ImageCrop
from mtframe_detection.letterbox import Letterbox
from mtframe_face.alignment import TEMPLATE, FaceAlign
from mtframe_face.crop import FaceCrop

# Of a dot, in pixels of the decoded image: wide enough to be there whatever an image is resized to.
SIGMA = 3.0

# Grey of what is no dot; not that of a letterbox.
GROUND = 30


def dotted(height: int, width: int, at: tuple[float, float], *, decoded: float = 1.0, face: float = 1.0) -> Sample:
    """A dark picture with a soft bright dot, and five points of a face in its middle.

    Args:
        height: Of the original.
        width: Likewise.
        at: x and y of the dot in parts of the original.
        decoded: Part of the original's sides that it was decoded at.
        face: Size of the face.
    """
    rows, columns = round(height * decoded), round(width * decoded)
    y, x = torch.arange(rows)[:, None] + 0.5, torch.arange(columns) + 0.5
    apart = (x - at[0] * columns) ** 2 + (y - at[1] * rows) ** 2
    image = (GROUND + 200 * torch.exp(-apart / (2 * SIGMA**2))).to(torch.uint8).expand(3, -1, -1)
    points = (TEMPLATE - 56) / 112 * min(height, width) * face + [width / 2, height / 2]
    # A little turned, as faces are.
    turn = np.array([[math.cos(0.2), math.sin(0.2)], [-math.sin(0.2), math.cos(0.2)]])
    points = (points - [width / 2, height / 2]) @ turn + [width / 2, height / 2]
    landmarks = torch.from_numpy(points).float()
    return Sample(
        image, {"landmarks": landmarks, "dot": torch.tensor([at[0] * width, at[1] * height])}, (height, width)
    )


def pictures() -> list[Sample]:
    """Of several shapes and sizes, two of them decoded at half their size."""
    return [
        dotted(90, 140, (0.45, 0.5)),
        dotted(240, 200, (0.55, 0.4), decoded=0.5),
        dotted(120, 120, (0.5, 0.6)),
        dotted(200, 320, (0.5, 0.45), decoded=0.5),
        dotted(130, 100, (0.4, 0.55)),
    ]


def sigma_in(sample: Sample, placement: Placement) -> float:
    """Of a sample's dot, in pixels of the input."""
    return SIGMA * placement.scale * sample.size[1] / sample.image.shape[2]


def centroid(image: Tensor, at: Sequence[float], reach: int) -> tuple[float, float] | None:
    """The middle of what is bright near a place; None where the input ends, or nothing is bright."""
    left, top = math.floor(at[0]) - reach, math.floor(at[1]) - reach
    right, bottom = left + 2 * reach + 1, top + 2 * reach + 1
    if left < 0 or top < 0 or right > image.shape[-1] or bottom > image.shape[-2]:
        return None
    part = image[:, top:bottom, left:right].float().mean(0)
    bright = (part - part.min() - 0.4 * (part.max() - part.min())).clamp(min=0)
    if part.max() - part.min() < 8:
        return None
    ys, xs = torch.arange(top, bottom) + 0.5, torch.arange(left, right) + 0.5
    return float((bright.sum(0) @ xs) / bright.sum()), float((bright.sum(1) @ ys) / bright.sum())


def compare(samples: Sequence[Sample], inputs: Inputs, *, within: float) -> tuple[int, int]:
    """How many dots were compared with where they should be, and how many of these in images drawn over others."""
    compared = above = 0
    for image, placements in zip(inputs.images, inputs.placements, strict=True):
        there = [placement.points(samples[placement.sample].target["dot"]) for placement in placements]
        for number, (placement, at) in enumerate(zip(placements, there, strict=True)):
            reach = math.ceil(3 * sigma_in(samples[placement.sample], placement)) + 2
            corners = at + reach * torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
            x1, y1, x2, y2 = placement.seen
            seen = ((corners >= torch.tensor([x1, y1])) & (corners < torch.tensor([x2, y2]))).all()
            height, width = placement.size
            source = placement.restored_points(corners)
            inside = ((source >= 0) & (source < torch.tensor([width, height]))).all()
            # Not where another one is drawn over it, nor where two dots are blended together.
            free = all(
                (corners[:, 0].max() < o.seen[0]) | (corners[:, 0].min() > o.seen[2])
                | (corners[:, 1].max() < o.seen[1]) | (corners[:, 1].min() > o.seen[3])
                for o in placements[number + 1 :] if o.share == 1
            )  # fmt: skip
            blended = any(other.share < 1 for other in placements)
            alone = not blended or all((at - other).norm() > 3 * reach for other in there if other is not at)
            if not (seen and inside and free and alone):
                continue
            found = centroid(image, at.tolist(), reach)
            if found is None:
                continue
            assert math.dist(found, at.tolist()) < within, (number, found, at, placement)
            compared += 1
            above += number > 0
    return compared, above


def compared(transform: Transform, *, batches: int = 12, within: float = 1.0) -> tuple[int, int]:
    samples, rng, total = pictures(), np.random.default_rng(0), [0, 0]
    for _ in range(batches):
        inputs = transform(samples, rng)
        assert len(inputs.placements) == len(samples)
        for number, placements in enumerate(inputs.placements):
            assert placements[0].sample == number
            for placement in placements:
                assert placement.size == samples[placement.sample].size
                assert placement.input_size == tuple(inputs.images.shape[2:])
        for place, more in enumerate(compare(samples, inputs, within=within)):
            total[place] += more
    return total[0], total[1]


STRONG: dict[str, Any] = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}


@pytest.mark.parametrize("train", [False, True])
def test_a_letterboxs(train: bool) -> None:
    assert compared(Letterbox(96, train, **STRONG))[0] > 50


def test_a_letterboxs_of_sizes_that_change() -> None:
    transform = Letterbox(96, True, sizes=(64, 96, 160), flip=0.5, **STRONG)
    assert compared(transform)[0] > 45


def test_a_letterboxs_mosaics() -> None:
    count, above = compared(Letterbox(160, True, mosaic=1.0, scale=(0.8, 2.0), **STRONG), batches=25)
    assert count > 100
    assert above > 60


@pytest.mark.parametrize("train", [False, True])
def test_a_face_crops(train: bool) -> None:
    options = {"rotate": 30.0, "scale": 0.3, "shift": 0.1}
    assert compared(FaceCrop(64, train, **options, **STRONG))[0] > 30


def test_a_face_crops_of_pictures_of_one_size() -> None:
    """Which are not resized to a common size first."""
    samples = [dotted(100, 110, (0.45 + 0.02 * n, 0.5)) for n in range(5)]
    rng, count = np.random.default_rng(0), 0
    for _ in range(10):
        inputs = FaceCrop(96, True, rotate=40.0, flip=0.5)(samples, rng)
        count += compare(samples, inputs, within=1.0)[0]
    assert count > 25


@pytest.mark.parametrize("train", [False, True])
def test_a_face_aligns(train: bool) -> None:
    assert compared(FaceAlign(96, train, rotate=40.0, scale=0.2, shift=0.05, **STRONG))[0] > 40


@pytest.mark.parametrize("train", [False, True])
def test_an_image_crops(train: bool) -> None:
    assert compared(ImageCrop(96, train, scale=(0.2, 1.0), **STRONG))[0] > 30


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_an_image_crops_partners(kind: str) -> None:
    count, above = compared(ImageCrop(96, True, scale=(0.5, 1.0), **{kind: 1.0}), batches=40)
    assert count > 40
    assert above > 10


def test_a_dot_that_is_not_where_it_should_be_is_noticed() -> None:
    """The comparison itself: two pixels are seen."""
    samples = pictures()
    inputs = Letterbox(96, False)(samples, np.random.default_rng(0))
    with pytest.raises(AssertionError):
        compare(samples, Inputs(inputs.images.roll(2, dims=3), inputs.placements), within=1.0)
