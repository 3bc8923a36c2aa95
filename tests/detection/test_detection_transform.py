from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional

from mtframe.data import DataInfo, DecodeSize, Sample
from mtframe.errors import RecipeError
from mtframe_detection.boxes import Boxes
from mtframe_detection.letterbox import Letterbox, vary_colour
from placed import bounds_of, labelled

BOXES = Boxes(DataInfo("boxes", ("cat", "dog", "bird")))

PLAIN: dict[str, Any] = {
    "flip": 0.0, "scale": (1.0, 1.0), "brightness": 0.0, "contrast": 0.0, "saturation": 0.0
}  # fmt: skip


def sample_of(height: int, width: int, boxes: Any = (), labels: Any = (), crowd: Any = None, **more: Any) -> Sample:
    boxes = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    target = {
        "boxes": boxes,
        "labels": torch.tensor(labels, dtype=torch.long),
        "crowd": torch.tensor(crowd if crowd is not None else [False] * len(boxes), dtype=torch.bool),
        "area": (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).float(),
    }
    image = more.pop("image", torch.zeros(3, height, width, dtype=torch.uint8))
    return Sample(image, target, (height, width), **more)


def squares(height: int, width: int, boxes: list[list[int]]) -> Tensor:
    """White rectangles on black."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for x1, y1, x2, y2 in boxes:
        image[:, y1:y2, x1:x2] = 255
    return image


def test_evaluation_fits_and_centres_by_hand() -> None:
    sample = sample_of(50, 100, [[10, 20, 30, 40]], [2], index=5, id="x")
    inputs, targets = labelled(Letterbox(64, False), BOXES, [sample, sample_of(64, 64)])
    assert inputs.images.shape == (2, 3, 64, 64)
    assert inputs.images.dtype == torch.uint8
    # 100 x 50 becomes 64 x 32, with 16 rows of grey above and below.
    assert (inputs.images[0, :, :16] == 114).all()
    assert (inputs.images[0, :, 48:] == 114).all()
    assert (inputs.images[0, :, 16:48] == 0).all()
    (first,), (second,) = inputs.placements
    assert first.matrix == ((0.64, 0, 0), (0, 0.64, 16))
    assert second.matrix == ((1, 0, 0), (0, 1, 0))
    assert [place.size for place in (first, second)] == [(50, 100), (64, 64)]
    assert [place.input_size for place in (first, second)] == [(64, 64)] * 2
    assert [place.sample for place in (first, second)] == [0, 1]
    torch.testing.assert_close(bounds_of(inputs), torch.tensor([[0.0, 16, 64, 48], [0, 0, 64, 64]]))
    torch.testing.assert_close(targets["boxes"][0], torch.tensor([[6.4, 28.8, 19.2, 41.6]]))
    assert targets["labels"].tolist() == [[2], [0]]
    assert targets["valid"].tolist() == [[True], [False]]
    assert targets["known"].tolist() == [True, True]


def test_evaluation_does_not_depend_on_chance_nor_on_company() -> None:
    image = torch.randint(0, 255, (3, 70, 90), dtype=torch.uint8)
    sample = sample_of(70, 90, [[1, 2, 3, 4]], [0], image=image)
    transform = Letterbox(64, False, mosaic=1.0, sizes=(32, 96))
    alone, boxes = labelled(transform, BOXES, [sample], np.random.default_rng(0))
    company, others = labelled(transform, BOXES, [sample_of(20, 20), sample], np.random.default_rng(1))
    assert torch.equal(alone.images[0], company.images[1])
    assert torch.equal(boxes["boxes"][0], others["boxes"][1, :1])
    assert transform.fixed_size


@settings(max_examples=30, deadline=None)
@given(height=st.integers(5, 700), width=st.integers(5, 700), size=st.sampled_from([64, 96, 320]))
def test_placements_lead_back_to_the_original(height: int, width: int, size: int) -> None:
    box = [0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height]
    inputs, targets = labelled(Letterbox(size, False), BOXES, [sample_of(height, width, [box], [0])])
    ((place,),) = inputs.placements
    torch.testing.assert_close(place.restored_boxes(targets["boxes"][0]), torch.tensor([box]), rtol=1e-4, atol=1e-3)


def test_an_image_decoded_smaller_gives_the_same_targets() -> None:
    whole = sample_of(480, 640, [[64, 48, 320, 240]], [1])
    reduced = sample_of(480, 640, [[64, 48, 320, 240]], [1], image=torch.zeros(3, 240, 320, dtype=torch.uint8))
    inputs, targets = labelled(Letterbox(160, False), BOXES, [whole, reduced])
    assert torch.equal(inputs.images[0], inputs.images[1])
    assert torch.equal(targets["boxes"][0], targets["boxes"][1])


def longer_sides(transform: Letterbox, samples: list[Sample], rng: np.random.Generator) -> list[float]:
    """Of the boxes that are to be found, in pixels of the input."""
    _, targets = labelled(transform, BOXES, samples, rng)
    sides = targets["boxes"][targets["valid"]]
    return (sides[:, 2:] - sides[:, :2]).amax(dim=1).tolist()


@pytest.mark.parametrize(("side", "least"), [(10, 0.85), (40, 0.85), (120, 0.75)])
def test_objects_on_mosaics_keep_the_size_that_they_are_looked_for_at(side: int, least: float) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [640 - side, 480 - side], (60, 2))
    samples = [sample_of(480, 640, [[x, y, x + side, y + side]], [0]) for x, y in corners]
    (looked_for,) = set(np.round(longer_sides(Letterbox(256, False), samples, rng), 3))
    trained = [
        length
        for _ in range(20)
        for length in longer_sides(Letterbox(256, True, mosaic=1.0, min_visible=0.5), samples, rng)
    ]
    ratios = np.array(trained) / looked_for
    # They vary as the scale does, 0.7 to 1.5; of what is magnified less is seen, and of large ones a part is cut off.
    assert least < np.median(ratios) < 1.1
    assert ratios.max() == pytest.approx(1.5, abs=0.03)
    assert np.quantile(ratios, 0.9) > 1.2


def test_mosaics_end_before_the_training_does() -> None:
    transform = Letterbox(64, True, mosaic=1.0, close_mosaic=0.25)
    samples = [sample_of(40, 60), sample_of(50, 50)]

    def parts(fraction: float) -> set[int]:
        transform.set_progress(fraction)
        return {len(one) for one in transform(samples, np.random.default_rng(0)).placements}

    assert [parts(fraction) for fraction in (0.0, 0.7499, 0.75, 0.99, 0.5)] == [{4}, {4}, {1}, {1}, {4}]
    never, always = Letterbox(64, True, mosaic=1.0, close_mosaic=0.0), Letterbox(64, True, mosaic=1.0, close_mosaic=1.0)
    never.set_progress(0.999)
    assert {len(one) for one in never(samples, np.random.default_rng(0)).placements} == {4}
    assert {len(one) for one in always(samples, np.random.default_rng(0)).placements} == {1}


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_follow_their_pixels_through_every_augmentation(mosaic: float) -> None:
    rng, boxes = np.random.default_rng(0), [[20, 15, 70, 50], [100, 60, 150, 110]]
    image = squares(120, 160, boxes)
    sample = sample_of(120, 160, boxes, [0, 1], image=image)
    transform = Letterbox(128, True, mosaic=mosaic, brightness=0, contrast=0, saturation=0, min_visible=0.0)
    seen = 0
    for _ in range(25):
        inputs, targets = labelled(transform, BOXES, [sample] * 2, rng)
        for picture, found, valid in zip(inputs.images, targets["boxes"], targets["valid"], strict=True):
            for x1, y1, x2, y2 in found[valid].tolist():
                inner = picture[:, round(y1) + 1 : round(y2) - 1, round(x1) + 1 : round(x2) - 1]
                assert (inner > 220).all()
                seen += 1
            white = (picture[0] > 150).float().sum()
            area = (found[valid][:, 2:] - found[valid][:, :2]).prod(dim=1).sum()
            assert white.item() == pytest.approx(area.item(), rel=0.15, abs=60)
    assert seen > 40


def test_mirroring_by_hand() -> None:
    sample = sample_of(64, 64, [[4, 8, 20, 30]], [1], image=squares(64, 64, [[4, 8, 20, 30]]))
    transform = Letterbox(64, True, **{**PLAIN, "flip": 1.0})
    inputs, targets = labelled(transform, BOXES, [sample])
    assert targets["boxes"].tolist() == [[[44, 8, 60, 30]]]
    assert (inputs.images[0, :, 8:30, 44:60] == 255).all()
    ((place,),) = inputs.placements
    # x' = 64 - x
    assert place.matrix == ((-1, 0, 64), (0, 1, 0))
    assert place.mirrored


def test_colours_vary_as_transforms_v2_does() -> None:
    # Values in the middle: nothing is clipped on the way.
    image = torch.randint(80, 150, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for factors in ((1.0, 1.0, 1.0), (1.2, 1.0, 1.0), (1.0, 0.7, 1.0), (1.0, 1.0, 1.3), (0.8, 1.2, 0.7)):
        expected = functional.adjust_brightness(image, factors[0])
        expected = functional.adjust_contrast(expected, factors[1])
        expected = functional.adjust_saturation(expected, factors[2])
        varied = vary_colour(image, *factors)
        # They cut to whole numbers three times, each half a level too low on average.
        assert (varied.int() - expected.int()).abs().max() <= 3, factors
        assert -0.1 < (varied.float() - expected.float()).mean() < 1.6, factors
    assert torch.equal(vary_colour(image, 1.0, 1.0, 1.0), image)
    assert (vary_colour(image, 2.0, 1.0, 1.0).max(), vary_colour(image, 0.0, 1.0, 1.0).max()) == (255, 0)


def test_what_is_cut_to_a_sliver_is_ignored_not_unlearned() -> None:
    # Twice as large: only half of each side is seen, at a random place.
    boxes = [[0, 0, 8, 64], [56, 0, 64, 64], [0, 0, 64, 64]]
    transform = Letterbox(64, True, **{**PLAIN, "scale": (2.0, 2.0)}, min_visible=0.5)
    rng, outcomes = np.random.default_rng(0), set[int]()
    for _ in range(20):
        _, targets = labelled(transform, BOXES, [sample_of(64, 64, boxes, [0, 1, 2])], rng)
        assert not (targets["labels"] == 2).any()  # a quarter of it is seen
        assert [0, 0, 64, 64] in targets["ignore"][0].tolist()
        assert (targets["boxes"] >= 0).all()
        assert (targets["boxes"] <= 64).all()
        # Of the narrow ones, each is seen whole in its width and half its height, or not at all.
        tall = targets["boxes"][0]
        assert ((tall[:, 3] - tall[:, 1]) == 64).all()
        outcomes.add(int(targets["valid"].sum()))
    assert outcomes <= {0, 1}


def test_crowds_are_regions_to_ignore() -> None:
    sample = sample_of(64, 64, [[4, 8, 20, 30], [30, 30, 60, 60]], [1, 0], [True, False])
    for train in (False, True):
        _, targets = labelled(Letterbox(64, train, **PLAIN), BOXES, [sample, sample_of(64, 64)])
        assert targets["boxes"].tolist() == [[[30, 30, 60, 60]], [[0, 0, 0, 0]]]
        assert targets["labels"].tolist() == [[0], [0]]
        assert targets["ignore"].tolist() == [[[4, 8, 20, 30]], [[0, 0, 0, 0]]]
        assert targets["ignore_valid"].tolist() == [[True], [False]]


def test_a_batch_without_any_box() -> None:
    _, targets = labelled(Letterbox(64, True), BOXES, [sample_of(64, 64)] * 2)
    assert targets["boxes"].shape == targets["ignore"].shape == (2, 0, 4)
    assert targets["labels"].shape == targets["valid"].shape == targets["ignore_valid"].shape == (2, 0)


def test_a_mosaic_shows_four_images() -> None:
    colours = [10, 80, 160, 240]
    samples = [sample_of(64, 64, image=torch.full((3, 64, 64), colour, dtype=torch.uint8)) for colour in colours]
    options = {**PLAIN, "scale": (1.5, 1.5)}
    batch = Letterbox(64, True, mosaic=1.0, **options)(samples, np.random.default_rng(0))
    for number, picture in enumerate(batch.images):
        shown = set(picture.unique().tolist())
        assert colours[number] in shown
        assert len(shown) > 1
        assert shown <= {*colours, 114}


def test_sizes_change_from_batch_to_batch_in_training_only() -> None:
    transform = Letterbox(96, True, sizes=(64, 96, 128))
    rng = np.random.default_rng(0)
    seen = {transform([sample_of(64, 64)] * 2, rng).images.shape[-1] for _ in range(20)}
    assert seen == {64, 96, 128}
    assert not transform.fixed_size
    assert Letterbox(96, True).fixed_size


def test_the_same_seed_gives_the_same_batch() -> None:
    image = torch.randint(0, 255, (3, 70, 90), dtype=torch.uint8)
    samples = [sample_of(70, 90, [[5, 5, 60, 60]], [0], image=image)] * 3
    transform = Letterbox(64, True, mosaic=0.5)

    def batch(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return transform(samples, np.random.default_rng(seed)).images

    assert torch.equal(batch(1), batch(1))
    assert not torch.equal(batch(1), batch(2))
    assert image.equal(samples[0].image)


def test_colours_vary_in_the_picture_and_not_in_its_padding() -> None:
    sample = sample_of(32, 64, image=torch.full((3, 32, 64), 100, dtype=torch.uint8))
    transform = Letterbox(64, True, flip=0, scale=(1, 1), brightness=0.9)
    images = transform([sample] * 8, np.random.default_rng(0)).images
    for image in images:
        # The picture is moved at random, and of one colour, which is not its own.
        values, counts = image.unique(return_counts=True)
        assert counts[values == 114].item() >= 3 * 32 * 64
    assert len({int(value) for image in images for value in image.unique()} - {114}) > 4


def test_how_small_an_image_may_be_decoded() -> None:
    # A 640 x 480 photograph at half its size is just enough for a square of 320 pixels.
    assert Letterbox(320, False).decode_size == DecodeSize(longer=320)
    # Magnified at random by up to 1.44, it may be blurred by up to 1.2.
    assert Letterbox(320, True, scale=(0.5, 1.44)).decode_size == DecodeSize(longer=384)
    assert Letterbox(320, True, scale=(1, 1), sizes=(320, 640)).decode_size == DecodeSize(longer=640)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 2}, r"flip must be within 0\.\.1, got 2"),
        ({"mosaic": -1}, r"mosaic must be within 0\.\.1, got -1"),
        ({"scale": (1.5, 0.5)}, r"scale must be a rising range above 0 .* got \[1.5, 0.5\]"),
        ({"scale": (0, 1)}, "scale must be a rising range above 0"),
        ({"scale": (0.7, 8.1)}, r"scale must be a rising range above 0 and up to 8, .* got \[0.7, 8.1\]"),
        ({"scale": (0.7, math.inf)}, r"scale must be .* up to 8, .* got \[0.7, inf\]"),
        ({"scale": (math.nan, 1)}, r"scale must be .* got \[nan, 1\]"),
        ({"sizes": (100,)}, r"sizes must be multiples of 32, got \[100\]"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Letterbox(64, True, **options)
