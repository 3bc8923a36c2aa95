"""Landmarks of pictures that are stored turned (EXIF): for what is seen, or for what is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtframe.data import Header
from mtframe.errors import DataError
from mtframe_face.identity_folders import IdentityFolders
from mtframe_face.landmarks import are_upright
from mtframe_face.lfw import LFW

# An upright face in the middle of a picture of 60 x 60: eyes, nose, corners of the mouth.
FACE = np.array([[22, 25], [38, 25], [30, 32], [24, 40], [36, 40]], np.float32)

# Undone by an EXIF orientation: where a point of a seen picture of 60 x 60 is stored (CIPA DC-008).
STORED = {
    3: lambda p: np.stack((60 - p[:, 0], 60 - p[:, 1]), 1),
    6: lambda p: np.stack((p[:, 1], 60 - p[:, 0]), 1),
    8: lambda p: np.stack((60 - p[:, 1], p[:, 0]), 1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_an_upright_face_tells_which_way_up_points_are_meant(orientation: int) -> None:
    header = Header((60, 60), orientation)
    assert are_upright(FACE, header)
    assert not are_upright(STORED[orientation](FACE), header)


def test_points_outside_of_one_way_up_are_for_the_other() -> None:
    # 100 wide and 40 high as stored; a face that is right of x = 40 and lies on its side.
    lying = np.array([[60, 10], [60, 30], [70, 20], [80, 12], [80, 28]], np.float32)
    assert not are_upright(lying, Header((40, 100), 6))
    assert are_upright(lying[:, ::-1], Header((40, 100), 6))


def write(root: Path, points: np.ndarray) -> None:
    """Two people in train and in val, each picture stored turned by 90 degrees, bright where its seen top left is."""
    exif = Image.Exif()
    exif[274] = 6
    seen = np.zeros((60, 60, 3), np.uint8)
    seen[:30, :30] = 255
    lines = []
    for name in ("train/a", "train/b", "val/c", "val/d"):
        for number in range(2):
            path = root / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            # Rotated back by a quarter, which orientation 6 undoes.
            Image.fromarray(np.rot90(seen)).save(path, exif=exif)
            lines.append(",".join([f"{name}/{number}.jpg", *(f"{value:g}" for value in points.ravel())]))
    (root / "landmarks.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def corner(data: IdentityFolders) -> str:
    image = data[0].image.float().mean(0)
    places = {"upper left": image[5, 5], "lower left": image[-5, 5]}
    return next(name for name, value in places.items() if value > 128)


@pytest.mark.parametrize(("points", "where"), [(FACE, "upper left"), (STORED[6](FACE), "lower left")])
def test_identity_folders_take_the_way_up_that_fits(tmp_path: Path, points: np.ndarray, where: str) -> None:
    write(tmp_path, points)
    data = IdentityFolders("train", root=tmp_path)
    assert corner(data) == where
    np.testing.assert_allclose(data[0].target["landmarks"], points)
    seen, stored = (4, 0) if where == "upper left" else (0, 4)
    assert f"4 are stored turned (EXIF): landmarks of {seen} are for what is seen, of {stored} for" in data.notes[-1]
    for orientation, other in (("stored", "lower left"), ("upright", "upper left")):
        chosen = IdentityFolders("train", root=tmp_path, orientation=orientation)  # type: ignore[arg-type]
        assert (corner(chosen), chosen.notes) == (other, ())
    # Without points, pictures are as they are seen.
    assert corner(IdentityFolders("train", root=tmp_path, landmarks=None)) == "upper left"


def test_pictures_in_lfws_layout_are_turned_too(tmp_path: Path) -> None:
    write(tmp_path, FACE)
    for name in "ab":
        folder = tmp_path / "lfw" / name
        folder.mkdir(parents=True)
        for number in range(2):
            (tmp_path / "train" / name / f"{number}.jpg").rename(folder / f"{name}_{number + 1:04d}.jpg")
    Image.new("RGB", (60, 60)).save(tmp_path / "lfw" / "a" / "other.png")
    data = LFW("train", root=tmp_path)
    assert corner(data) == "upper left"  # type: ignore[arg-type]
    assert data.omitted == {"images that are not called NAME_0001.jpg": 1}
    points = ",".join(f"{value:g}" for value in STORED[6](FACE).ravel())
    (tmp_path / "points.csv").write_text(f"lfw/a/a_0001.jpg,{points}\n", encoding="utf-8")
    assert corner(LFW("train", root=tmp_path, landmarks="points.csv")) == "lower left"  # type: ignore[arg-type]


def test_a_bad_line_of_landmarks_costs_that_line(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("val", "cd")):
        for name in names:
            for number in range(2):
                picture = tmp_path / split / name / f"{number}.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (60, 60)).save(picture)
    ids = ("train/a/0", "train/a/1", "train/b/0", "val/c/0", "val/c/1", "val/d/0")
    rows = [f"{id}.png,{','.join('9' * 10)}" for id in ids]
    (tmp_path / "landmarks.csv").write_text("\n".join([*rows, "train/b/1.png,1,2"]), encoding="utf-8")
    train, val = (IdentityFolders(split, root=tmp_path) for split in ("train", "val"))
    assert train.omitted == {"lines of landmarks that are wrong": 1}
    assert "1 of 4 lines are left out, since they are wrong: " in train.notes[0]
    assert "landmarks.csv:7: expected path,x1,y1" in train.notes[0]
    assert ["landmarks" in train[index].target for index in range(4)] == [True, True, True, False]
    # It is told once, in the split that its image is in.
    assert (val.omitted, val.notes) == ({}, ())
    with pytest.raises(DataError, match="1 of 4 lines would have to be left out"):
        IdentityFolders("train", root=tmp_path, bad_labels=0)
    (tmp_path / "landmarks.csv").write_text("\n".join([*rows, "what is this", "path,x1"]), encoding="utf-8")
    with pytest.raises(DataError, match=r"2 of 5 lines would(.*\n)*.*:7: expected .*'what is this'"):
        IdentityFolders("train", root=tmp_path)
