from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from mtframe.data import DataInfo, DecodeSize, Sample
from mtframe.errors import RecipeError
from mtframe_face.crop import FaceCrop
from mtframe_face.identity import Identity
from placed import collated

IDENTITY = Identity(DataInfo("identity", ("a", "b")))
STILL = dict.fromkeys(("flip", "rotate", "scale", "shift", "brightness", "contrast", "saturation"), 0.0)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _smooth(height: int, width: int, index: int = 0) -> Sample:
    """A picture that bears resampling: low frequencies only, different in each channel."""
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    waves = [0.5 + 0.4 * torch.sin(5 * x * (c + 1) + index) * torch.cos(4 * y) for c in range(3)]
    image = (torch.stack(waves) * 255).to(torch.uint8)
    # Laid out as the decoder does, channels last in memory.
    image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    return Sample(image, {"label": torch.tensor(index % 2)}, (height, width), index, f"{index}.jpg")


def test_evaluation_is_the_middle_resized() -> None:
    sample = _smooth(250, 250)
    batch = FaceCrop(112, False, crop=0.56)([sample, sample], _rng())
    expected = TF.resize(sample.image[:, 55:195, 55:195], [112, 112], antialias=True)
    assert batch.images.dtype == torch.uint8
    assert torch.equal(batch.images[1], expected)
    assert collated(IDENTITY, [sample, sample], batch)["label"].tolist() == [0, 0]
    # Of a thing at its edge all counts that is seen.
    assert [place.min_visible for (place,) in batch.placements] == [None, None]


def test_evaluation_is_the_same_for_each_picture_whatever_stands_beside_it() -> None:
    samples = [_smooth(250, 250), _smooth(120, 300, 1), _smooth(90, 60, 2)]
    crop = FaceCrop(64, False)
    mixed = crop(samples, _rng(0)).images
    for index, sample in enumerate(samples):
        assert torch.equal(crop([sample], _rng(9)).images[0], mixed[index])


def test_a_picture_of_112_pixels_is_a_face_already_and_is_taken_whole() -> None:
    aligned, funneled = _smooth(112, 112), _smooth(250, 250, 1)
    crop = FaceCrop(112, False)
    batch = crop([aligned, funneled], _rng())
    assert torch.equal(batch.images[0], aligned.image)
    assert torch.equal(batch.images[1], crop([funneled], _rng()).images[0])
    ((place,), _) = batch.placements
    np.testing.assert_allclose(place.matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-9)
    # In training, too, beside others or alone.
    for samples in ([aligned], [aligned, funneled]):
        still = FaceCrop(112, True, **STILL)(samples, _rng())
        assert (still.images[0].int() - aligned.image.int()).abs().max() <= 3
        np.testing.assert_allclose(still.placements[0][0].matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-6)
    # Decoded at half its size, a picture is as large as before.
    large = _smooth(112, 112)
    large.size = (224, 224)
    assert not torch.equal(crop([large], _rng()).images[0], aligned.image)
    # Who names a crop has it of all.
    expected = TF.resize(aligned.image[:, 24:87, 24:87], [112, 112], antialias=True)
    assert torch.equal(FaceCrop(112, False, crop=0.56)([aligned], _rng()).images[0], expected)


def test_placements_map_the_original_onto_the_input() -> None:
    # Decoded at half its 400 × 240: the shorter side 120 gives a crop of 60, from x 70 and y 30.
    sample = _smooth(120, 200)
    sample.size = (240, 400)
    ((place,),) = FaceCrop(30, False, crop=0.5)([sample], _rng()).placements
    corners = torch.tensor([[140.0, 60.0], [260.0, 180.0]])
    torch.testing.assert_close(place.points(corners), torch.tensor([[0.0, 0.0], [30.0, 30.0]]))
    assert (place.size, place.input_size) == ((240, 400), (30, 30))
    assert place.bounds == pytest.approx((-35, -15, 65, 45))


def test_training_without_strength_is_evaluation() -> None:
    samples = [_smooth(250, 250, index) for index in range(3)]
    still = FaceCrop(112, True, **STILL)(samples, _rng())
    exact = FaceCrop(112, False)(samples, _rng())
    assert (still.images.int() - exact.images.int()).abs().max() <= 3
    assert collated(IDENTITY, samples, still)["label"].tolist() == [0, 1, 0]
    for (one,), (other,) in zip(still.placements, exact.placements, strict=True):
        np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-6)


def test_mirroring_mirrors() -> None:
    sample = _smooth(250, 250)
    exact = FaceCrop(112, True, **STILL)([sample], _rng()).images
    mirrored = FaceCrop(112, True, **STILL | {"flip": 1.0})([sample], _rng()).images
    assert (mirrored.flip(3).int() - exact.int()).abs().max() <= 1


def _spot(crop: FaceCrop, y: int, x: int, seed: int) -> tuple[float, float]:
    """Where in the crop's output (centred, in pixels) a bright spot of a 200 × 200 picture comes to lie."""
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)
    image[:, y - 3 : y + 3, x - 3 : x + 3] = 255
    output = crop([Sample(image, {"label": torch.tensor(0)}, (200, 200))], _rng(seed)).images[0, 0].float()
    place = torch.arange(100) + 0.5 - 50
    return (
        (output.sum(1) @ place / output.sum()).item(),
        (output.sum(0) @ place / output.sum()).item(),
    )


def test_turning_scaling_and_shifting_stay_within_their_limits_and_reach_them() -> None:
    # The crop of 100 from 200 pixels, seen at 100: a spot 20 above the middle.
    turned = FaceCrop(100, True, **STILL | {"crop": 0.5, "rotate": 20.0})
    spots = np.array([_spot(turned, 80, 100, seed) for seed in range(60)])
    angles = np.degrees(np.arctan2(spots[:, 1], -spots[:, 0]))
    np.testing.assert_allclose(np.hypot(*spots.T), 20, atol=0.5)
    assert np.abs(angles).max() <= 20.5
    assert angles.min() < -15
    assert angles.max() > 15

    scaled = FaceCrop(100, True, **STILL | {"crop": 0.5, "scale": 0.2})
    heights = -np.array([_spot(scaled, 80, 100, seed)[0] for seed in range(40)])
    assert heights.min() >= 20 / 1.2 - 0.3
    assert heights.max() <= 20 / 0.8 + 0.3
    assert heights.max() - heights.min() > 5

    shifted = FaceCrop(100, True, **STILL | {"crop": 0.5, "shift": 0.1})
    moves = np.array([_spot(shifted, 100, 100, seed) for seed in range(40)])
    assert np.abs(moves).max() <= 10.2
    assert (np.abs(moves).max(0) > 8).all()


def test_light_changes_each_picture_by_one_map() -> None:
    sample = _smooth(250, 250)
    exact = FaceCrop(64, True, **STILL)([sample], _rng()).images[0].double()
    for option in ("brightness", "contrast", "saturation"):
        lit = FaceCrop(64, True, **STILL | {option: 0.3})
        output = lit([sample] * 8, _rng()).images.double()
        change = (output - exact).flatten(1).std(1)
        assert change.max() > 2, option
        if option != "saturation":
            # y = a x + b, up to rounding and what is cut off at 0 and 255.
            inside = ((output > 0) & (output < 255)).all(0)
            for picture in output:
                slope, offset = np.polyfit(exact[inside].numpy(), picture[inside].numpy(), 1)
                assert (picture[inside] - slope * exact[inside] - offset).abs().max() < 2
                assert 0.69 <= slope <= 1.31


def test_grey_stays_grey_when_colourfulness_changes() -> None:
    image = torch.randint(0, 255, (1, 250, 250), dtype=torch.uint8).expand(3, -1, -1)
    batch = FaceCrop(64, True, **STILL | {"saturation": 0.5})(
        [Sample(image, {"label": torch.tensor(0)}, (250, 250))], _rng()
    )
    assert (batch.images.amax(1).int() - batch.images.amin(1).int()).max() <= 1


def test_erasing_covers_a_rectangle() -> None:
    samples = [_smooth(250, 250, index) for index in range(40)]
    exact = FaceCrop(64, True, **STILL)(samples, _rng()).images
    covered = FaceCrop(64, True, **STILL, erase=1.0)(samples, _rng()).images
    for before, after in zip(exact, covered, strict=True):
        changed = (before != after).any(0)
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        box = after[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].flatten(1)
        assert (box.amax(1) == box.amin(1)).all()
        assert 0.005 * 64**2 < box.shape[1] <= 0.23 * 64**2


def test_the_same_random_numbers_give_the_same_batch() -> None:
    samples = [_smooth(250, 250, index) for index in range(4)]
    crop = FaceCrop(64, True, erase=0.5)
    first, again, other = (crop(samples, _rng(seed)).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("height", "width"), [(1200, 900), (40, 70), (8, 8)])
def test_pictures_of_any_size_fit(train: bool, height: int, width: int) -> None:
    samples = [_smooth(height, width), _smooth(250, 250, 1)]
    alone = FaceCrop(112, train)(samples[:1], _rng())
    both = FaceCrop(112, train)(samples, _rng())
    assert alone.images.shape == (1, 3, 112, 112)
    assert both.images.shape == (2, 3, 112, 112)


def test_large_pictures_are_filtered_before_they_are_made_small() -> None:
    # A fine chequerboard must turn grey, not into moiré.
    image = ((torch.arange(2000)[:, None] + torch.arange(2000)) % 2 * 255).to(torch.uint8).expand(3, -1, -1)
    batch = FaceCrop(64, True, **STILL)([Sample(image, {"label": torch.tensor(0)}, (2000, 2000))], _rng())
    assert batch.images.float().std() < 3


def test_it_asks_for_as_many_pixels_as_the_crop_needs() -> None:
    assert FaceCrop(112, True, crop=0.56).decode_size == DecodeSize(shorter=200)
    assert FaceCrop(112, True).fixed_size


def test_it_survives_pickling() -> None:
    crop = pickle.loads(pickle.dumps(FaceCrop(64, True)))  # noqa: S301
    assert len(crop([_smooth(100, 100)], _rng()).images) == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("crop", 1.2, "crop: must be 0.05 to 1, got 1.2"),
        ("flip", -0.1, "flip: must be 0 to 1, got -0.1"),
        ("brightness", 3.0, "brightness: must be 0 to 0.95, got 3"),
        ("rotate", 360.0, "rotate: must be 0 to 180, got 360"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FaceCrop(112, True, **{option: value})
