from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from mtframe.errors import BadImageError, DataError, RecipeError
from mtframe_face.identification import FaceIdentification
from mtframe_face.identity_folders import IdentityFolders
from mtframe_face.verification import FaceVerification

WritePerson = Callable[..., None]

PEOPLE = {"Ann": 3, "Bob": 2, "Eve": 1, "Kim": 3, "Lea": 2, "Max": 1}

# Who somebody is does not depend on the picture's.
SIZE = (40, 40)


@pytest.fixture
def flat(tmp_path: Path, write_person: WritePerson) -> Path:
    """Six people right in the root."""
    for name, count in PEOPLE.items():
        write_person(tmp_path / "flat", name, list(range(1, count + 1)))
    return tmp_path / "flat"


@pytest.fixture
def parted(flat: Path, tmp_path: Path) -> Path:
    """Three in `train`, three in `val`."""
    for split, names in {"train": ("Ann", "Bob", "Eve"), "val": ("Kim", "Lea", "Max")}.items():
        for name in names:
            (tmp_path / "parted" / split).mkdir(parents=True, exist_ok=True)
            shutil.move(flat / name, tmp_path / "parted" / split / name)
    return tmp_path / "parted"


def test_folders_of_splits_are_the_splits(parted: Path) -> None:
    train, val = IdentityFolders("train", root=parted), IdentityFolders("val", root=parted)
    assert train.info.target == "identity"
    assert train.info.classes == val.info.classes == ("Ann", "Bob")
    assert [int(train[i].target["label"]) for i in range(len(train))] == [0, 0, 0, 1, 1]
    assert train[4].id == "train/Bob/Bob_0002.jpg"
    assert train[4].image.shape == (3, 40, 40)
    assert (train.notes, train.omitted) == ((), {"people with too few images (min_images)": 1})
    assert (train.pairs, train.roles) == (None, None)
    assert val.people == ("Kim", "Lea", "Max")
    assert {int(val[i].target["label"]) for i in range(len(val))} == {-1}


def test_names_that_begin_with_a_dot_are_passed_over(parted: Path) -> None:
    (parted / "train" / "Ann" / "._Ann_0001.jpg").write_bytes(b"what macOS leaves beside a file")
    assert len(IdentityFolders("train", root=parted)) == 5


def test_val_has_pairs_and_roles_that_the_metrics_take(parted: Path) -> None:
    val = IdentityFolders("val", root=parted, pairs=4, unknown=0.0)
    assert val.pairs is not None
    assert val.roles is not None
    # Kim 0-2, Lea 3-4, Max 5: all four pairs of one person there are.
    same = {(int(a), int(b)) for a, b, s in zip(val.pairs.first, val.pairs.second, val.pairs.same, strict=True) if s}
    assert same == {(0, 1), (0, 2), (1, 2), (3, 4)}
    assert (~val.pairs.same).sum() == 4
    assert val.roles.gallery.tolist() == [True, False, False, True, False, False]
    train = IdentityFolders("train", root=parted)
    for metric in (FaceVerification, FaceIdentification):
        metric(val, train.info)
        with pytest.raises(DataError, match=r"1 of the people .* were trained on \(Kim\)"):
            metric(val, type(train.info)("identity", ("Kim", "Zoe")))


def test_people_right_in_the_root_are_cut_by_person_always_alike(flat: Path, write_person: WritePerson) -> None:
    def sides(**options: Any) -> tuple[set[str], set[str]]:
        given = {"root": flat, "min_images": 1, **options}
        return set(IdentityFolders("train", **given).people), set(IdentityFolders("val", **given).people)

    train, val = sides(validate=0.34)
    assert len(val) == 2
    assert not train & val
    assert train | val == set(PEOPLE)
    assert sides(validate=0.34) == (train, val)
    assert len({frozenset(sides(validate=0.34, seed=seed)[1]) for seed in range(8)}) > 2
    write_person(flat, "Zoe", [1, 2])
    later_train, later_val = sides(validate=0.29)
    assert later_train | later_val == {*PEOPLE, "Zoe"}
    assert len(later_val & val) >= 1
    with pytest.raises(RecipeError, match=r"no folder '.*test'; people right in the root are cut into train and val"):
        IdentityFolders("test", root=flat)


def test_any_kind_of_image_is_taken_and_nothing_else(parted: Path) -> None:
    folder = parted / "train" / "Bob"
    Image.new("RGB", (10, 8)).save(folder / "a.PNG")
    Image.new("L", (10, 8)).save(folder / "b.webp")
    for name in ("notes.txt", "Thumbs.db"):
        (folder / name).write_text("no image", encoding="utf-8")
    (parted / "train" / ".git").mkdir()
    train = IdentityFolders("train", root=parted)
    assert [train[i].id for i in range(3, len(train))] == [
        f"train/Bob/{name}" for name in ("Bob_0001.jpg", "Bob_0002.jpg", "a.PNG", "b.webp")
    ]
    (folder / "a.PNG").write_bytes(b"\x89PNG")
    with pytest.raises(BadImageError, match=r"a\.PNG"):
        train[5]


def test_somebody_in_both_is_refused(parted: Path) -> None:
    shutil.copytree(parted / "train" / "Ann", parted / "val" / "Ann")
    with pytest.raises(DataError, match=r"1 people stand both in train and in val \(Ann\)"):
        IdentityFolders("val", root=parted)


def test_an_epoch_has_a_persons_images_in_a_row(parted: Path) -> None:
    for person in ("Ann", "Bob"):
        for number in range(10, 19):
            shutil.copy(parted / "train" / person / f"{person}_0001.jpg", parted / "train" / person / f"{number}.jpg")
    train = IdentityFolders("train", root=parted, per_identity=4)
    order = train.order(np.random.default_rng(0))
    labels = np.array([int(train[int(index)].target["label"]) for index in order])
    groups = labels[: len(labels) // 4 * 4].reshape(-1, 4)
    assert (groups[:5] == groups[:5, :1]).all()
    assert sorted(order.tolist()) == list(range(len(train)))
    plain = IdentityFolders("train", root=parted)
    assert sorted(plain.order(np.random.default_rng(0)).tolist()) == list(range(len(plain)))


def test_landmarks_come_with_the_images_that_have_them(parted: Path) -> None:
    numbers = ",".join(str(number / 2) for number in range(10))
    (parted / "landmarks.csv").write_text(
        f"path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\ntrain/Ann/Ann_0002.jpg,{numbers}\nother.jpg,{numbers}\n", encoding="utf-8"
    )
    train = IdentityFolders("train", root=parted)
    assert train[1].target["landmarks"].tolist() == [[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5], [4, 4.5]]
    assert "landmarks" not in train[0].target
    assert "landmarks" not in IdentityFolders("train", root=parted, landmarks=None)[1].target
    with pytest.raises(RecipeError, match=r"landmarks: no file '.*mine.csv'. It holds lines of path,x1,y1,"):
        IdentityFolders("train", root=parted, landmarks="mine.csv")
    with pytest.raises(DataError, match=r"landmarks.csv: has none of the 6 images; expected paths such as 'val/Kim"):
        IdentityFolders("val", root=parted)
    (parted / "landmarks.csv").write_text(
        f"train/Ann/Ann_0002.jpg,{numbers}\ntrain/Bob/Bob_0001.jpg,1,2,3\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"landmarks.csv:2: expected path,x1,y1,...,x5,y5, found 'train/Bob"):
        IdentityFolders("train", root=parted)


def test_landmarks_are_known_by_path_too_for_another_task_on_the_same_images(parted: Path) -> None:
    numbers = ",".join(str(number / 2) for number in range(10))
    (parted / "landmarks.csv").write_text(
        f"train/Ann/Ann_0002.jpg,{numbers}\nval/Kim/Kim_0001.jpg,{numbers}\n", encoding="utf-8"
    )
    train = IdentityFolders("train", root=parted)
    expected = train[1].target["landmarks"]
    assert train.target_of("train/Ann/Ann_0002.jpg", SIZE)["landmarks"].equal(expected)
    for unknown in ("train/Ann/Ann_0001.jpg", "val/Kim/Kim_0001.jpg", "x.jpg"):
        target = train.target_of(unknown, SIZE)["landmarks"]
        assert (target.shape, target.dtype) == ((5, 2), torch.float32)
        assert target.isnan().all()
    copy = pickle.loads(pickle.dumps(train))  # noqa: S301
    assert copy.target_of("train/Ann/Ann_0002.jpg", SIZE)["landmarks"].equal(expected)
    assert set(IdentityFolders("train", root=parted, landmarks=None).target_of("x.jpg", SIZE)) == {"label"}


def test_pictures_are_turned_upright_unless_landmarks_are_in_their_pixels(parted: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (20, 10)).save(parted / "train" / "Ann" / "Ann_0001.jpg", exif=exif)
    sample = IdentityFolders("train", root=parted)[0]
    assert (sample.image.shape, sample.size) == ((3, 20, 10), (20, 10))
    (parted / "landmarks.csv").write_text("train/Ann/Ann_0001.jpg" + ",5" * 10 + "\n", encoding="utf-8")
    sample = IdentityFolders("train", root=parted)[0]
    assert (sample.image.shape, sample.size) == ((3, 10, 20), (10, 20))


def test_the_target_of_an_image_is_known_by_its_path(parted: Path, flat: Path, write_person: WritePerson) -> None:
    train = IdentityFolders("train", root=parted)
    for index in range(len(train)):
        assert train.target_of(train[index].id, SIZE)["label"] == train[index].target["label"]
    for other in ("val/Kim/Kim_0001.jpg", "train/Eve/Eve_0001.jpg", "Ann/Ann_0001.jpg", "x.jpg", ""):
        assert train.target_of(other, SIZE)["label"] == -1
    val = IdentityFolders("val", root=parted)
    assert (val.target_of("train/Bob/Bob_0001.jpg", SIZE)["label"], val.target_of(val[0].id, SIZE)["label"]) == (1, -1)
    write_person(flat, "Ida", [1, 2])
    write_person(flat, "Joe", [1, 2])
    write_person(flat, "Lou", [1, 2])
    write_person(flat, "Mia", [1, 2])
    mixed = IdentityFolders("train", root=flat)
    assert mixed.target_of(mixed[2].id, SIZE)["label"] == mixed[2].target["label"]


def test_it_survives_pickling(parted: Path) -> None:
    val = IdentityFolders("val", root=parted)
    copy = pickle.loads(pickle.dumps(val))  # noqa: S301
    assert [copy[i].id for i in range(len(copy))] == [val[i].id for i in range(len(val))]
    with pytest.raises(IndexError):
        copy[len(copy)]


def test_wrong_calls_say_what_to_do(parted: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no folder '.*nowhere'. It holds a folder of pictures for each person"):
        IdentityFolders("train", root=tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="identity-folders has no 'dev'; it has train, val, test"):
        IdentityFolders("dev", root=parted)
    with pytest.raises(RecipeError, match=r"no folder '.*test', though there is one for train"):
        IdentityFolders("test", root=parted)
    with pytest.raises(DataError, match=r"0 people with 9 or more images .* in split 'train'; at least 2 are needed"):
        IdentityFolders("train", root=parted, min_images=9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected NAME/\*.jpg, .* found no folder"):
        IdentityFolders("train", root=tmp_path / "empty")
    for option, value, said in (
        ("validate", 1.0, "validate: must be above 0 and below 1, got 1"),
        ("unknown", 1.0, "unknown: must be 0 or more and below 1, got 1"),
        ("per_identity", 0, "per_identity: must be 1 or more, got 0"),
        ("seed", -1, "seed: must be 0 or more, got -1"),
    ):
        with pytest.raises(RecipeError, match=said):
            IdentityFolders("train", root=parted, **{option: value})


def test_made_up_people_have_this_layout_and_landmarks(tmp_path: Path) -> None:
    counts = IdentityFolders.synthesize(tmp_path / "a", people=3, images=3, test_people=2, size=64, workers=1)
    assert counts == {"people": 3, "test_people": 2, "images": 15}
    train, val = IdentityFolders("train", root=tmp_path / "a"), IdentityFolders("val", root=tmp_path / "a")
    assert (len(train), len(val), len(train.info.classes)) == (9, 6, 3)
    for sample in (train[0], val[5]):
        left, right, nose, mouth_left, mouth_right = sample.target["landmarks"].tolist()
        assert left[0] < nose[0] < right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    assert (tmp_path / "a" / "landmarks.csv").read_text(encoding="utf-8").count("\n") == 16
    # Made anew in its own folder, and the same again.
    before = (tmp_path / "a" / "landmarks.csv").read_bytes(), (tmp_path / "a" / train[0].id).read_bytes()
    IdentityFolders.synthesize(tmp_path / "a", people=3, images=3, test_people=2, size=64, workers=1)
    assert ((tmp_path / "a" / "landmarks.csv").read_bytes(), (tmp_path / "a" / train[0].id).read_bytes()) == before


def test_a_gallery_that_takes_everybodys_pictures_is_refused_by_identification(parted: Path) -> None:
    with pytest.raises(DataError, match=r"of the 3 people in this split 0 are enrolled.*'gallery'.* has 3 at most"):
        FaceIdentification(IdentityFolders("val", root=parted, gallery=3))


def test_people_in_folders_of_groups_are_told(tmp_path: Path, write_person: WritePerson) -> None:
    for team, name in (
        ("red", "Ann"),
        ("red", "Bob"),
        ("blue", "Eve"),
        ("blue", "Kim"),
        ("blue", "Lea"),
        ("green", "Max"),
        ("grey", "Zoe"),
    ):
        write_person(tmp_path / "teams" / team, name, [1, 2])
    with pytest.raises(
        DataError, match=r"no picture lies in .*teams/NAME/, but . folders of pictures lie deeper, as .*teams/\w+/\w+"
    ):
        IdentityFolders("train", root=tmp_path / "teams")
    # Among people with pictures of their own it is noted.
    for name in ("Ann", "Bob", "Eve", "Kim"):
        write_person(tmp_path / "mixed" / "train", name, [1, 2])
    write_person(tmp_path / "mixed" / "train" / "team", "Max", [1, 2])
    train = IdentityFolders("train", root=tmp_path / "mixed")
    assert train.info.classes == ("Ann", "Bob", "Eve", "Kim")
    assert train.notes[-1] == "1 folders hold pictures two folders deep (team/Max); not read"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_people_to_be_cut_are_told(tmp_path: Path, write_person: WritePerson, count: int) -> None:
    names = ["Ann", "Bob", "Eve"][:count]
    for name in names:
        write_person(tmp_path / "few", name, [1, 2, 3])
    said = rf"{count} people in all \({', '.join(names)}\). To learn takes two, and to validate two others"
    for split in ("train", "val"):
        with pytest.raises(DataError, match=said):
            IdentityFolders(split, root=tmp_path / "few")


def test_two_groups_of_people_are_no_two_people(tmp_path: Path) -> None:
    for person in ("team0/a", "team0/b", "team1/c", "team1/d"):
        (tmp_path / person).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / person / "1.jpg")
    with pytest.raises(
        DataError, match=r"no picture lies in .*/NAME/, but 4 folders of pictures lie deeper, as .*team0/a"
    ):
        IdentityFolders("train", root=tmp_path)
