from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as TF

from mtframe.data import DataInfo, DecodeSize, Sample
from mtframe.errors import RecipeError
from mtframe_classification.image_crop import ImageCrop
from mtframe_classification.targets import Label, Labels, Value
from placed import collated

LABEL = Label(DataInfo("label", ("a", "b", "c")))
LABELS = Labels(DataInfo("labels", ("a", "b")))
VALUE = Value(DataInfo("value", ("x", "y")))
WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "crop": 1.0}
STILL = WHOLE | {"flip": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _picture(height: int, width: int, index: int = 0) -> Sample:
    """Smooth, different in each channel; laid out as the decoder does, channels last."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    waves = [0.5 + 0.4 * torch.sin(5 * x * (c + 1) + index) * torch.cos(4 * y) for c in range(3)]
    image = (torch.stack(waves) * 255).to(torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return Sample(image, {"label": torch.tensor(index % 3)}, (height, width), index, f"{index}.jpg")


def test_evaluation_is_the_middle_resized() -> None:
    samples = [_picture(100, 140), _picture(300, 200, 1)]
    batch = ImageCrop(64, False, crop=0.8)(samples, _rng())
    assert batch.images.dtype == torch.uint8
    assert torch.equal(batch.images[0], TF.resize(samples[0].image[:, 10:90, 30:110], [64, 64], antialias=True))
    assert torch.equal(batch.images[1], TF.resize(samples[1].image[:, 70:230, 20:180], [64, 64], antialias=True))
    assert collated(LABEL, samples, batch)["label"].tolist() == [0, 1]
    # Of a thing at its edge all counts that is seen.
    assert [(place.sample, place.min_visible) for (place,) in batch.placements] == [(0, None), (1, None)]


def test_training_without_strength_is_evaluation() -> None:
    samples = [_picture(90, 90, index) for index in range(3)]
    still = ImageCrop(64, True, **STILL)(samples, _rng())
    exact = ImageCrop(64, False, **STILL)(samples, _rng())
    assert torch.equal(still.images, exact.images)
    assert [[place.matrix for place in its] for its in still.placements] == [
        [place.matrix for place in its] for its in exact.placements
    ]
    assert torch.equal(collated(LABEL, samples, still)["label"], torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("size", [(120, 90), (90, 400), (7, 5)])
def test_crops_keep_to_their_area_and_shape(size: tuple[int, int]) -> None:
    crop = ImageCrop(32, True, scale=(0.3, 0.8), ratio=(0.5, 2.0))
    rng, image = _rng(), _picture(*size).image
    places = [crop._place(image, rng) for _ in range(300)]
    area = np.array([height * width for _, _, height, width, _ in places]) / (size[0] * size[1])
    ratio = np.array([width / height for _, _, height, width, _ in places])
    assert all(0 <= top <= size[0] - h and 0 <= left <= size[1] - w for top, left, h, w, _ in places)
    if size == (120, 90):
        # Rounding to pixels moves them a little.
        assert 0.29 <= area.min() < 0.33
        assert 0.6 < area.max() <= 0.82
        assert 0.48 <= ratio.min() < 0.6
        assert 1.6 < ratio.max() <= 2.1
        assert 0.4 < np.mean([mirrored for *_, mirrored in places]) < 0.6


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)),
    st.booleans(),
)
def test_crops_lie_in_their_picture(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], train: bool
) -> None:
    crop = ImageCrop(8, train, scale=(min(scale), max(scale)), ratio=(min(ratio), max(ratio)))
    top, left, height, width, _ = crop._place(torch.zeros(3, *size), _rng())
    assert 0 <= top <= size[0] - height
    assert 0 <= left <= size[1] - width
    assert min(height, width) >= 1


def test_placements_map_the_original_onto_the_input() -> None:
    # A gradient whose red is the column and whose green is the row: the input says itself where it comes from.
    y, x = torch.meshgrid(torch.arange(120.0), torch.arange(160.0), indexing="ij")
    image = torch.stack([x, y, x * 0]).to(torch.uint8)
    # Decoded at half its 240 × 320.
    sample = Sample(image, {}, (240, 320))
    crop = ImageCrop(40, True, **STILL | {"scale": (0.3, 0.6), "ratio": (0.8, 1.25), "flip": 0.5})
    mirrored = []
    for seed in range(12):
        batch = crop([sample], _rng(seed))
        ((place,),) = batch.placements
        mirrored.append(place.mirrored)
        for column, row in [(10, 10), (20, 30), (32, 8)]:
            source = place.restored_points(torch.tensor([column + 0.5, row + 0.5])) / 2 - 0.5
            torch.testing.assert_close(batch.images[0, :2, row, column].float(), source, atol=1.1, rtol=0)
        assert (place.size, place.input_size) == ((240, 320), (40, 40))
    assert set(mirrored) == {True, False}


def test_colours_change_each_picture_by_its_own_factors() -> None:
    samples = [_picture(64, 64)] * 6
    exact = ImageCrop(64, False, **STILL)(samples[:1], _rng()).images[0]
    for option in ("brightness", "contrast", "saturation"):
        images = ImageCrop(64, True, **STILL | {option: 0.4})(samples, _rng()).images
        changes = [(image.float() - exact.float()).abs().mean().item() for image in images]
        assert len({round(change, 3) for change in changes}) == 6
        assert max(changes) > 4
    bright = ImageCrop(64, True, **STILL | {"brightness": 0.4})(samples, _rng()).images.float()
    inside = (bright.amax(0) < 255) & (exact > 60)
    factors = (bright / exact)[:, inside]
    assert (factors.amax(1) - factors.amin(1)).max() < 0.04, "one factor over the whole picture"
    assert factors.min() > 0.58
    assert factors.max() < 1.42


def test_fine_patterns_turn_grey_not_into_others() -> None:
    image = ((torch.arange(900)[:, None] + torch.arange(900)) % 2 * 255).to(torch.uint8).expand(3, -1, -1)
    sample = Sample(image, {}, (900, 900))
    for train in (True, False):
        assert ImageCrop(64, train, **STILL)([sample], _rng()).images.float().std() < 3


def test_the_same_random_numbers_give_the_same_batch() -> None:
    samples = [_picture(80, 100, index) for index in range(5)]
    crop = pickle.loads(pickle.dumps(ImageCrop(48, True, mixup=0.4, cutmix=1.0)))  # noqa: S301
    first, again, other = (crop(samples, _rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert first.placements == again.placements
    assert not torch.equal(first.images, other.images)
    assert first.placements != other.placements


def test_targets_of_every_kind_are_stacked_and_pictures_to_predict_need_none() -> None:
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    some = [Sample(image, {"labels": torch.tensor([1.0, torch.nan])}, (20, 20))] * 2
    assert collated(LABELS, some, ImageCrop(16, True)(some, _rng()))["labels"].shape == (2, 2)
    some = [Sample(image, {"value": torch.tensor([1.5, -2])}, (20, 20))] * 3
    assert collated(VALUE, some, ImageCrop(16, True)(some, _rng()))["value"].tolist() == [[1.5, -2]] * 3
    assert ImageCrop(16, False)([Sample(image, {}, (20, 20))], _rng()).images.shape == (1, 3, 16, 16)


def test_it_asks_for_as_many_pixels_as_it_needs() -> None:
    assert ImageCrop(180, False, crop=0.9).decode_size == DecodeSize(shorter=200)
    assert ImageCrop(90, True, scale=(0.62, 1.0)).decode_size == DecodeSize(shorter=100)
    assert ImageCrop(180, True).fixed_size
    assert not ImageCrop(180, True).mixes
    assert ImageCrop(180, True, cutmix=1.0).mixes


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("scale", (0.5, 0.3), r"scale: must be a rising range within 0..1, as in \[0.35, 1\], got \[0.5, 0.3\]"),
        ("scale", (0.0, 1.0), "scale: must be a rising range"),
        ("scale", (0.5, 1.2), "scale: must be a rising range"),
        ("ratio", (0.0, 1.0), r"ratio: must be a rising range above 0, as in \[0.75, 1.33\], got \[0.0, 1.0\]"),
        ("flip", 1.5, "flip: must be 0 to 1, got 1.5"),
        ("crop", 0.0, "crop: must be 0.05 to 1, got 0"),
        ("contrast", -0.1, "contrast: must be 0 to 1, got -0.1"),
        ("mixup", -1.0, "mixup: must be 0 to inf, got -1"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ImageCrop(64, True, **{option: value})
