from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as TF

from mtframe.data import DataInfo, Sample
from mtframe.errors import BadImageError, DataError, PluginError, RecipeError
from mtframe_face.alignment import TEMPLATE, FaceAlign, fit_similarity
from mtframe_face.identity import Identity
from mtframe_face.identity_folders import IdentityFolders
from mtframe_face.landmarks import find_detector
from placed import collated

IDENTITY = Identity(DataInfo("identity", ("a", "b")))
STILL = dict.fromkeys(("flip", "rotate", "scale", "shift", "brightness", "contrast", "saturation"), 0.0)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _spots(
    points: np.ndarray, height: int, width: int, radius: float = 3.0, size: tuple[int, int] | None = None
) -> Sample:
    """Soft bright spots in a dark picture, one at each landmark."""
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    image = sum(torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2)) for px, py in points.tolist())
    assert isinstance(image, torch.Tensor)
    pixels = (image.clamp(max=1) * 255).to(torch.uint8).expand(3, -1, -1)
    size = size or (height, width)
    landmarks = torch.tensor(points * [size[1] / width, size[0] / height], dtype=torch.float32)
    return Sample(pixels, {"label": torch.tensor(1), "landmarks": landmarks}, size, 0, "face.jpg")


def _face(angle: float, scale: float, x: float, y: float) -> np.ndarray:
    """The template turned about its middle, scaled, and moved there."""
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (TEMPLATE - 56) @ turn * scale + [x, y]


def _centre(image: torch.Tensor, around: np.ndarray, reach: int) -> np.ndarray:
    """Of brightness near a place, in pixels."""
    left, top = (np.floor(around) - reach).astype(int)
    part = image[0, top : top + 2 * reach + 1, left : left + 2 * reach + 1].double()
    place = torch.arange(2 * reach + 1, dtype=torch.float64) + 0.5
    return np.array([(part.sum(0) @ place / part.sum()) + left, (part.sum(1) @ place / part.sum()) + top])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=3, max_size=6, unique=True),
    st.floats(-3, 3), st.floats(0.1, 9), st.integers(0, 99),
)  # fmt: skip
def test_the_fit_is_the_least_squares_similarity(
    points: list[tuple[float, float]], angle: float, scale: float, seed: int
) -> None:
    z = np.array(points)
    if z.std(0).max() < 1:
        return
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    goals = z @ turn.T + [3, -7] + _rng(seed).normal(0, 2, z.shape)
    a, b = fit_similarity(z, goals)
    # As a linear system for (re a, im a, re b, im b), solved by numpy.
    ones, zeros = np.ones(len(z)), np.zeros(len(z))
    rows = np.concatenate([np.stack([z[:, 0], -z[:, 1], ones, zeros], 1), np.stack([z[:, 1], z[:, 0], zeros, ones], 1)])
    expected = np.linalg.lstsq(rows, goals.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose([a.real, a.imag, b.real, b.imag], expected, rtol=1e-6, atol=1e-6)


def test_it_is_umeyamas() -> None:
    """IEEE TPAMI 13(4), 1991, eqs. 40 to 42, by singular values."""
    points = _face(0.4, 1.7, 200, 150) + _rng(1).normal(0, 3, (5, 2))
    a, b = fit_similarity(points, TEMPLATE)
    x, y = points - points.mean(0), TEMPLATE - TEMPLATE.mean(0)
    u, d, vt = np.linalg.svd(y.T @ x / 5)
    sign = np.diag([1, np.sign(np.linalg.det(u @ vt))])
    turn = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / x.var(0).sum()
    np.testing.assert_allclose([[a.real, -a.imag], [a.imag, a.real]], scale * turn, rtol=1e-9)
    np.testing.assert_allclose([b.real, b.imag], TEMPLATE.mean(0) - scale * turn @ points.mean(0), rtol=1e-9)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("size", [112, 64])
@pytest.mark.parametrize(
    ("angle", "scale", "picture"),
    [(0.0, 1.0, (160, 180)), (0.5, 1.5, (320, 300)), (-2.0, 0.7, (120, 110)), (0.2, 6.0, (800, 900))],
)
def test_eyes_nose_and_mouth_come_to_lie_on_the_template(
    train: bool, size: int, angle: float, scale: float, picture: tuple[int, int]
) -> None:
    points = _face(angle, scale, picture[1] * 0.52, picture[0] * 0.48)
    sample = _spots(points, *picture, radius=3 * scale)
    batch = FaceAlign(size, train, **STILL)([sample, sample], _rng())
    assert batch.images.shape == (2, 3, size, size)
    assert collated(IDENTITY, [sample, sample], batch)["label"].tolist() == [1, 1]
    # The placement says the same of the points as the pixels do, but for the fit's remainder of nothing.
    for (place,) in batch.placements:
        np.testing.assert_allclose(place.points(torch.from_numpy(points)), TEMPLATE * size / 112, atol=1e-3)
    for goal in TEMPLATE * size / 112:
        found = _centre(batch.images[1], goal, reach=round(8 * size / 112))
        assert np.abs(found - goal).max() < 0.15, (found, goal)


def test_landmarks_are_in_pixels_of_the_original() -> None:
    # The picture was decoded at half its size.
    sample = _spots(_face(0.1, 1.5, 150, 140), 300, 320, size=(600, 640))
    batch = FaceAlign(112, False)([sample], _rng())
    assert np.abs(_centre(batch.images[0], TEMPLATE[2], 8) - TEMPLATE[2]).max() < 0.2
    # The middle of the input is that of the face, and a pixel of the original is a third of one here.
    ((place,),) = batch.placements
    torch.testing.assert_close(place.points(torch.tensor([300.0, 280.0])), torch.full((2,), 56.0), atol=0.01, rtol=0)
    assert place.scale == pytest.approx(1 / 3, abs=1e-4)
    # The face is turned by a tenth, and the map turns it back.
    (a, b, _), (d, e, _) = place.matrix
    assert [math.atan2(b, a), math.atan2(-d, e)] == pytest.approx([0.1, 0.1], abs=1e-4)


def test_pictures_of_different_sizes_do_not_change_one_another() -> None:
    samples = [_spots(_face(0.3, s, 100 * s, 90 * s), round(200 * s), round(210 * s), 3 * s) for s in (0.4, 1.0, 2.6)]
    align = FaceAlign(112, False)
    together = align(samples, _rng()).images
    for index, sample in enumerate(samples):
        alone = align([sample], _rng()).images[0]
        assert (alone.int() - together[index].int()).abs().max() <= 1


def test_beyond_a_picture_its_edge_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever lies in memory that nothing was written to.
    empty = torch.empty
    garbage: Any = lambda *shape, **how: empty(*shape, **how) if how else torch.full(shape, torch.nan)  # noqa: E731
    monkeypatch.setattr(torch, "empty", garbage)
    image = torch.full((3, 90, 90), 200, dtype=torch.uint8)
    # Far out: half of what is to be seen lies beyond; beside it a picture that makes the canvas larger.
    cut = Sample(image, {"landmarks": torch.from_numpy(_face(0, 1, 85, 5)).float()}, (90, 90), 0, "cut")
    gone = Sample(image, {"landmarks": torch.from_numpy(_face(0, 1, 500, -400)).float()}, (90, 90), 0, "gone")
    large = _spots(_face(0.7, 1.9, 200, 200), 400, 400)
    for train in (True, False):
        images = FaceAlign(112, train, **STILL)([cut, large, gone], _rng()).images
        assert (images[[0, 2]] == 200).all()


def test_a_large_face_is_filtered_before_it_is_made_small() -> None:
    image = ((torch.arange(1400)[:, None] + torch.arange(1400)) % 2 * 255).to(torch.uint8).expand(3, -1, -1)
    landmarks = torch.from_numpy(_face(0.3, 7.3, 700, 700)).float()
    batch = FaceAlign(112, False)([Sample(image, {"landmarks": landmarks}, (1400, 1400))], _rng())
    assert batch.images.float().std() < 3


def test_mirroring_and_moving_stay_within_their_limits() -> None:
    sample = _spots(_face(0.2, 1.2, 130, 120), 250, 260, radius=2)
    exact = FaceAlign(112, True, **STILL)([sample], _rng()).images
    mirrored = FaceAlign(112, True, **STILL | {"flip": 1.0})([sample], _rng()).images
    assert (mirrored.flip(3).int() - exact.int()).abs().max() <= 1

    # Only a point 20 above the middle of the input is bright.
    points = _face(0.2, 1.2, 130, 120)
    a, b = fit_similarity(points, TEMPLATE)
    spot = ((56 + 36j) - b) / a
    image = _spots(np.array([[spot.real, spot.imag]]), 250, 260).image
    still = Sample(image, {"landmarks": torch.from_numpy(points).float()}, (250, 260))

    def spot_at(seed: int, **options: float) -> np.ndarray:
        moved = FaceAlign(112, True, **STILL | options)([still], _rng(seed)).images[0]
        return _centre(moved, np.array([56.0, 56.0]), 50) - 56

    assert np.abs(spot_at(0) - [0, -20]).max() < 0.2
    turned = np.array([spot_at(seed, rotate=20.0) for seed in range(16)])
    angles = np.degrees(np.arctan2(turned[:, 0], -turned[:, 1]))
    np.testing.assert_allclose(np.hypot(*turned.T), 20, atol=0.3)
    assert np.abs(angles).max() <= 20.5
    assert np.ptp(angles) > 25
    shifted = np.array([spot_at(seed, shift=0.1) for seed in range(16)]) - [0, -20]
    assert np.abs(shifted).max() <= 11.4
    assert (np.abs(shifted).max(0) > 8).all()
    scaled = -np.array([spot_at(seed, scale=0.2) for seed in range(16)])[:, 1]
    assert 20 / 1.2 - 0.3 < scaled.min() < 18.5
    assert 22 < scaled.max() < 20 / 0.8 + 0.3


def test_without_landmarks_the_message_says_what_to_do() -> None:
    plain = Sample(torch.zeros(3, 112, 112, dtype=torch.uint8), {}, (112, 112), 0, "val/Ann/1.jpg")
    with pytest.raises(RecipeError, match=r"val/Ann/1.jpg: no landmarks .*landmarks=FILE.*detector=NAME.*aligned=true"):
        FaceAlign(112, False)([plain], _rng())
    unknown = Sample(plain.image, {"landmarks": torch.full((5, 2), math.nan)}, (112, 112), 0, "y.jpg")
    with pytest.raises(RecipeError, match=r"y.jpg: no landmarks to align the face by"):
        FaceAlign(112, False)([unknown], _rng())
    assert FaceAlign(112, False, aligned=True)([unknown], _rng()).images.max() == 0
    same = Sample(plain.image, {"landmarks": torch.ones(5, 2)}, (112, 112), 0, "x.jpg")
    with pytest.raises(DataError, match=r"x.jpg: a face cannot be aligned by these landmarks: all points are in one"):
        FaceAlign(112, False)([same], _rng())


def test_a_picture_that_is_aligned_already_is_taken_as_it_is() -> None:
    image = torch.randint(0, 255, (3, 112, 112), dtype=torch.uint8)
    align = FaceAlign(112, False, aligned=True)
    batch = align([Sample(image, {}, (112, 112))], _rng())
    assert torch.equal(batch.images[0], image)
    ((place,),) = batch.placements
    np.testing.assert_allclose(place.matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-9)
    smooth = _spots(_face(0, 4, 300, 240), 480, 600, radius=20).image
    expected = TF.resize(smooth[:, :, 60:540], [112, 112], antialias=True)
    wide = align([Sample(smooth, {}, (480, 600))], _rng()).images[0]
    assert (wide.int() - expected.int()).abs().max() <= 2


DETECTOR = """
import torch
class Finder:
    def __call__(self, image):
        assert image.dtype == torch.uint8
        if image.max() == 0:
            return None
        points = (image[0] > 250).nonzero().float().flip(1) + 0.5
        order = points[:, 1].argsort()
        return points[order][:5]
class Wrong:
    def __call__(self, image):
        return torch.zeros(4, 2)
class Broken:
    def __init__(self):
        raise OSError("no weights")
"""


def test_a_detector_finds_the_points_of_plain_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "finder.py").write_text(DETECTOR, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    image = torch.ones(3, 300, 300, dtype=torch.uint8)
    points = np.round(_face(0.1, 2.0, 150, 150))
    for x, y in points.astype(int):
        image[:, y, x] = 255
    plain = Sample(image, {}, (300, 300), 0, "plain.jpg")
    align = FaceAlign(112, False, detector="./finder.py:Finder")
    found = align([plain], _rng())
    known = Sample(image, {"landmarks": torch.from_numpy(points + 0.5).float()}, (300, 300))
    assert torch.equal(found.images, FaceAlign(112, False)([known], _rng()).images)
    nobody = Sample(torch.zeros(3, 50, 50, dtype=torch.uint8), {}, (50, 50), 0, "nobody.jpg")
    with pytest.raises(BadImageError, match=r"nobody.jpg: the detector finds no face in it. .*transform.aligned=true"):
        align([nobody], _rng())
    fallback = FaceAlign(112, False, detector="./finder.py:Finder", aligned=True)
    assert fallback([nobody], _rng()).images.max() == 0
    with pytest.raises(DataError, match=r"plain.jpg: the detector gave \(4, 2\) numbers, expected five finite points"):
        FaceAlign(112, False, detector="./finder.py:Wrong")([plain], _rng())


def test_a_detector_that_is_not_there_or_broken_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "finder.py").write_text(DETECTOR, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("retina", r"no detector 'retina'.*entry-point group 'mtframe_face.landmarks'; .*./file.py:Class"),
        ("./finder.py:Findr", r"detector '.*finder.py:Findr': no 'Findr' in .*finder.py; did you mean 'Finder'\?"),
        ("./finder.py:Broken", "detector './finder.py:Broken' cannot be used: OSError: no weights"),
        ("./none.py:Finder", r"detector '.*none.py:Finder': cannot read .*none.py: No such file"),
    ):
        with pytest.raises(PluginError, match=said):
            FaceAlign(112, False, detector=name)


def test_a_detector_in_a_file_is_that_of_the_current_folder_and_goes_to_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "finder.py").write_text(f"class Finder:\n    folder = {folder!r}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "a")
    here: Any = find_detector("./finder.py:Finder")
    assert here.folder == pickle.loads(pickle.dumps(here)).folder == "a"  # noqa: S301
    monkeypatch.chdir(tmp_path / "b")
    there: Any = find_detector("./finder.py:Finder")
    full: Any = find_detector(f"{tmp_path / 'a' / 'finder.py'}:Finder")
    assert (there.folder, full.folder) == ("b", "a")


def test_an_installed_detector_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from mtframe_face import landmarks as _landmarks

    made = SimpleNamespace(name="mine", load=lambda: lambda: "a detector")
    monkeypatch.setattr(_landmarks, "entry_points", lambda group: [made] if group == "mtframe_face.landmarks" else [])
    _landmarks._class_of.cache_clear()
    assert find_detector("mine") == "a detector"
    _landmarks._class_of.cache_clear()
    with pytest.raises(PluginError, match="no detector 'mind'; did you mean 'mine'"):
        find_detector("mind")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("flip", -0.1, "flip: must be 0 to 1, got -0.1"),
        ("rotate", 360.0, "rotate: must be 0 to 180, got 360"),
        ("brightness", 3.0, "brightness: must be 0 to 0.95, got 3"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FaceAlign(112, True, **{option: value})


def test_it_survives_pickling_and_draws_the_same_from_the_same_numbers() -> None:
    sample = _spots(_face(0.2, 1.2, 130, 120), 250, 260)
    align = pickle.loads(pickle.dumps(FaceAlign(64, True, erase=0.5)))  # noqa: S301
    first, again, other = (align([sample] * 3, _rng(seed)).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_faces_of_made_up_people_are_aligned_by_their_landmarks(tmp_path: Path) -> None:
    """Eyes are dark spots on skin: averaged over people they are where the template has them, and nowhere without."""
    IdentityFolders.synthesize(tmp_path, people=16, images=2, test_people=2, size=128, workers=1)
    data = IdentityFolders("train", root=tmp_path)
    samples = [data[index] for index in range(len(data))]
    batch = FaceAlign(112, False)(samples, _rng())
    mean = batch.images.float().mean((0, 1))
    for x, y in TEMPLATE[:2].round().astype(int):
        around = mean[y - 14 : y + 15, x - 14 : x + 15]
        column = int(around.argmin()) % around.shape[1]
        # Brows are dark too, and above.
        assert abs(column - 14) <= 6
        assert mean[y - 2 : y + 3, x - 2 : x + 3].mean() < around.mean() - 8
