from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtframe.data import DataInfo
from mtframe.errors import BadImageError, DataError, RecipeError
from mtframe_face.alignment import FaceAlign
from mtframe_face.lfw import LFW
from mtframe_face.verification import FaceVerification

WritePerson = Callable[..., None]

# Who somebody is does not depend on the picture's.
SIZE = (40, 40)


def category(metric: FaceVerification) -> tuple[str, ...]:
    """What its notes say of View 2's rules."""
    return tuple(note for note in metric.notes if note.startswith("LFW View 2"))


def test_training_takes_the_listed_people_that_have_enough_images(lfw_root: Path) -> None:
    train = LFW("train", root=lfw_root)
    assert train.info.target == "identity"
    assert train.info.classes == ("Ann", "Bob")  # Eve has one image, Gus none; Kim is not listed
    assert [int(train[i].target["label"]) for i in range(len(train))] == [0, 0, 0, 1, 1]
    assert train.absent == 6  # one of Ann, five of Gus
    assert train.omitted["images that the people file promises and the disk does not have"] == 6
    assert LFW("train", root=lfw_root, min_images=1).info.classes == ("Ann", "Bob", "Eve")


def test_samples_are_rgb_with_the_path_below_the_root_as_id(lfw_root: Path, write_person: WritePerson) -> None:
    write_person(lfw_root / "lfw-deepfunneled", "Ann", [1], size=(30, 20))
    sample = LFW("train", root=lfw_root)[0]
    assert sample.image.shape == (3, 20, 30)
    assert sample.size == (20, 30)
    assert (sample.index, sample.id) == (0, "lfw-deepfunneled/Ann/Ann_0001.jpg")


def test_evaluation_takes_the_distinct_images_of_the_pairs(lfw_root: Path) -> None:
    val = LFW("val", root=lfw_root)
    ids = [Path(val[i].id).stem for i in range(len(val))]
    assert ids == ["Kim_0001", "Kim_0003", "Lea_0001", "Lea_0002", "Kim_0002", "Max_0001"]
    assert val.pairs is not None
    assert val.pairs.first.tolist() == [0, 2, 4, 0]
    assert val.pairs.second.tolist() == [1, 3, 5, 2]
    assert val.pairs.same.tolist() == [True, True, False, False]
    assert val.people == ("Kim", "Lea", "Max")
    # Nobody who is evaluated is a class; the classes are the training's.
    assert val.info == LFW("train", root=lfw_root).info
    assert {int(val[i].target["label"]) for i in range(len(val))} == {-1}


def test_past_the_end_is_an_index_error(lfw_root: Path) -> None:
    val = LFW("val", root=lfw_root)
    with pytest.raises(IndexError):
        val[len(val)]
    assert len(list(val)) == 6  # type: ignore[call-overload]


def test_it_survives_pickling(lfw_root: Path) -> None:
    val = LFW("val", root=lfw_root)
    copy = pickle.loads(pickle.dumps(val))  # noqa: S301
    assert copy[3].id == val[3].id


@pytest.mark.parametrize("name", ["lfw", "lfw_funneled", "lfw-funneled", None])
def test_the_folder_of_images_has_several_published_names(lfw_root: Path, name: str | None) -> None:
    folder = lfw_root / "lfw-deepfunneled"
    if name is None:
        for person in folder.iterdir():
            shutil.move(person, lfw_root / person.name)
        folder.rmdir()
    else:
        folder.rename(lfw_root / name)
    assert len(LFW("train", root=lfw_root)) == 5
    assert len(LFW("val", root=lfw_root)) == 6


def test_without_a_people_file_everybody_trains_whom_no_pair_names(view2: Path, write_person: WritePerson) -> None:
    (view2 / "peopleDevTrain.txt").unlink()
    write_person(view2 / "lfw-deepfunneled", "Fay", [1, 2])
    train = LFW("train", root=view2, min_images=1)
    assert train.info.classes == ("Eve", "Fay")
    assert len(LFW("test", root=view2)) == 7


def test_people_in_training_and_view_1_are_refused(lfw_root: Path) -> None:
    (lfw_root / "peopleDevTrain.txt").write_text("2\nAnn\t3\nKim\t3\n", encoding="utf-8")
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"1 people stand both in peopleDevTrain.txt .* pairsDevTest.txt .*Kim"):
            LFW(split, root=lfw_root)


def test_view_2_is_refused_after_training_on_view_1(view2: Path) -> None:
    LFW("train", root=view2)  # that both files lie there is no fault
    with pytest.raises(DataError, match=r"2 people stand both .* pairs.txt \(test\): Ann, Bob.*people=null"):
        LFW("test", root=view2)


def test_a_model_that_learned_from_the_pairs_people_is_refused(view2: Path) -> None:
    learned = LFW("train", root=view2).info
    test = LFW("test", root=view2, people=None)  # as if the model were trained elsewhere, which it was not
    assert test.pairs is not None
    assert test.pairs.fold.tolist() == [0, 0, 1, 1]
    FaceVerification(test, test.info)
    with pytest.raises(DataError, match=r"2 of the people to be verified were trained on \(Ann, Bob\)"):
        FaceVerification(test, learned)
    with pytest.raises(DataError, match="this split has none"):
        FaceVerification(LFW("train", root=view2), learned)


def test_pairs_of_absent_images_are_refused(lfw_root: Path) -> None:
    (lfw_root / "lfw-deepfunneled/Kim/Kim_0003.jpg").unlink()
    (lfw_root / "lfw-deepfunneled/Max/Max_0001.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of 4 pairs would have to be left out.*at most 1 may be(.*\n)*.*Kim_0003"):
        LFW("val", root=lfw_root)


def test_a_bad_line_costs_its_pair(lfw_root: Path) -> None:
    """One absent image of the pairs: the others keep their fold, and their images."""
    (lfw_root / "lfw-deepfunneled/Max/Max_0001.jpg").unlink()
    val = LFW("val", root=lfw_root)
    assert val.pairs is not None
    assert (len(val.pairs), val.pairs.same.tolist(), len(val)) == (3, [True, True, False], 4)
    assert val.omitted == {"pairs whose lines are wrong or whose images are not there": 1}
    assert "1 of 4 pairs are left out" in val.notes[0]
    assert "no image number 1, as Max_0001.jpg" in val.notes[0]
    with pytest.raises(DataError, match="1 of 4 pairs would have to be left out"):
        LFW("val", root=lfw_root, bad_labels=0)
    # A line that is no pair, as well as an image that is not there, is one too many.
    (lfw_root / "pairsDevTest.txt").write_text(
        "2\nKim\t1\t3\nLea\t1\tx\nKim\t2\tMax\t1\nKim\t1\tLea\t1\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"2 of 4 pairs(.*\n)*.*pairsDevTest\.txt:3: expected an image's number"):
        LFW("val", root=lfw_root)
    # Of training, nobody reads the wrong pair's images.
    assert LFW("train", root=lfw_root).omitted.get("pairs whose lines are wrong or whose images are not there") is None


def test_a_view_that_lacks_a_pair_is_not_that_view(view2: Path) -> None:
    assert LFW("test", root=view2, people=None).protocol == "LFW View 2"
    lines = (view2 / "pairs.txt").read_text(encoding="utf-8").splitlines()
    (view2 / "pairs.txt").write_text("\n".join([lines[0], "nonsense", *lines[2:]]), encoding="utf-8")
    test = LFW("test", root=view2, people=None)
    assert test.pairs is not None
    assert (len(test.pairs), test.protocol) == (len(lines) - 2, None)


def test_a_bad_line_of_people_costs_its_person(lfw_root: Path) -> None:
    (lfw_root / "peopleDevTrain.txt").write_text("4\nAnn\t4\nBob\t2\nEve\t1\nGus five\n", encoding="utf-8")
    train, val = LFW("train", root=lfw_root), LFW("val", root=lfw_root)
    assert train.omitted["lines of the people file that are wrong"] == 1
    assert "peopleDevTrain.txt:5: expected a number of images (1 or more), found 'five'" in " ".join(train.notes)
    # The file is one, and told once.
    assert (train.info, val.omitted, val.notes) == (val.info, {}, ())
    with pytest.raises(DataError, match="1 of 4 lines would have to be left out"):
        LFW("train", root=lfw_root, bad_labels=0)


def test_pictures_have_any_suffix_in_any_case_and_keep_their_names(lfw_root: Path) -> None:
    folder = lfw_root / "lfw-deepfunneled"
    (folder / "Ann" / "Ann_0001.jpg").rename(folder / "Ann" / "Ann_1.JPG")
    with Image.open(folder / "Kim" / "Kim_0003.jpg") as picture:
        picture.save(folder / "Kim" / "kim_0003.PNG")
    (folder / "Kim" / "Kim_0003.jpg").unlink()
    assert LFW("train", root=lfw_root).ids()[0] == "lfw-deepfunneled/Ann/Ann_1.JPG"
    val = LFW("val", root=lfw_root)
    assert val.ids()[:2] == ["lfw-deepfunneled/Kim/Kim_0001.jpg", "lfw-deepfunneled/Kim/kim_0003.PNG"]
    assert val[1].image.shape == (3, 40, 40)


def test_a_broken_image_is_named(lfw_root: Path) -> None:
    (lfw_root / "lfw-deepfunneled/Ann/Ann_0002.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(BadImageError, match=r"Ann_0002\.jpg"):
        LFW("train", root=lfw_root)[1]


def test_other_files_in_a_persons_folder_are_passed_over(lfw_root: Path) -> None:
    for name in ("Thumbs.db", "Bob_0001.jpg", "Ann_0001.jpg.part", "Ann_x.jpg", "Ann_00001.jpg"):
        (lfw_root / "lfw-deepfunneled/Ann" / name).write_bytes(b"")
    assert len(LFW("train", root=lfw_root)) == 5


def test_wrong_calls_say_what_to_do(lfw_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no folder '.*nowhere'. Fetch it with: mtframe data download lfw .*nowhere"):
        LFW("train", root=tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="lfw has no 'dev'; it has train, val, test"):
        LFW("dev", root=lfw_root)
    with pytest.raises(RecipeError, match=r"people: no file '.*mine.txt'"):
        LFW("train", root=lfw_root, people="mine.txt")
    with pytest.raises(RecipeError, match=r"no file '.*pairs.txt', which split 'test' reads; split val can be read"):
        LFW("test", root=lfw_root)
    with pytest.raises(DataError, match="0 people to train on with 9 or more images"):
        LFW("train", root=lfw_root, min_images=9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no person"):
        LFW("train", root=tmp_path / "empty")


def test_made_up_people_have_this_layout(tmp_path: Path) -> None:
    LFW.synthesize(tmp_path, people=3, images=2, test_people=3, pairs=2, size=48, workers=1)
    assert LFW("train", root=tmp_path).info.classes == LFW("val", root=tmp_path).info.classes
    pairs = LFW("val", root=tmp_path).pairs
    assert pairs is not None
    assert pairs.same.tolist() == [True, True, False, False]


def test_real_lfw(shared_data: Path) -> None:
    train, val = LFW("train", root=shared_data / "lfw"), LFW("val", root=shared_data / "lfw")
    assert (len(train.info.classes), len(train)) == (298, 3678)
    assert val.pairs is not None
    assert (len(val), len(val.pairs)) == (1549, 1000)
    assert np.bincount(val.pairs.fold, weights=val.pairs.same).tolist() == [50] * 10
    assert not set(train.info.classes) & set(val.people)


def test_view_2_is_reported_in_its_category_of_outside_data(view2: Path, write_person: WritePerson) -> None:
    test = LFW("test", root=view2, people=None)
    write_person(view2 / "lfw-deepfunneled", "Gus", [1, 2])
    inside, elsewhere = DataInfo("identity", ("Eve", "Gus")), DataInfo("identity", ("Eve", "Zoe", "Yan"))
    assert category(FaceVerification(test, inside)) == ("LFW View 2: Unrestricted, No Outside Data (UM-CS-2014-003)",)
    assert category(FaceVerification(test, inside, ("pretrained weights of timm/resnet18",))) == (
        "LFW View 2: Unrestricted, Labeled Outside Data (UM-CS-2014-003): learned from pretrained weights of "
        "timm/resnet18",
    )
    assert category(FaceVerification(test, elsewhere, ("task objects (coco)",))) == (
        "LFW View 2: Unrestricted, Labeled Outside Data (UM-CS-2014-003): learned from 2 people of other data, "
        "task objects (coco)",
    )
    landmarks = FaceAlign.outside(detector="./finder.py:Finder")
    assert landmarks == "landmarks of the faces"
    assert category(FaceVerification(test, inside, (landmarks,))) == (
        "LFW View 2: Unrestricted, Label-Free Outside Data (UM-CS-2014-003): learned from landmarks of the faces",
    )
    for info, outside in ((inside, (landmarks, "task objects (coco)")), (elsewhere, (landmarks,))):
        (note,) = category(FaceVerification(test, info, outside))
        assert note.startswith("LFW View 2: Unrestricted, Labeled Outside Data (UM-CS-2014-003): learned from ")
    assert category(FaceVerification(LFW("val", root=view2), elsewhere, ("anything",))) == ()


def test_first_images_are_the_gallery_of_identification(lfw_root: Path) -> None:
    assert LFW("train", root=lfw_root).roles is None
    val = LFW("val", root=lfw_root)
    assert val.roles is not None
    # Kim 1, Kim 3, Lea 1, Lea 2, Kim 2, Max 1: Max has no second image and is unknown.
    assert val.roles.gallery.tolist() == [True, False, True, False, False, False]
    assert [val.people[person] for person in val.roles.identity] == ["Kim", "Kim", "Lea", "Lea", "Kim", "Max"]


def test_landmarks_and_the_order_of_training(lfw_root: Path) -> None:
    numbers = ",".join(map(str, range(10)))
    (lfw_root / "points.txt").write_text(
        f"lfw-deepfunneled/Ann/Ann_0002.jpg,{numbers}\n".replace(",", " "), encoding="utf-8"
    )
    train = LFW("train", root=lfw_root, landmarks="points.txt", per_identity=2)
    assert train[1].target["landmarks"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert set(train[0].target) == {"label"}
    assert train.target_of(train[1].id, SIZE)["landmarks"].equal(train[1].target["landmarks"])
    assert train.target_of(train[0].id, SIZE)["landmarks"].isnan().tolist() == [[True, True]] * 5
    order = train.order(np.random.default_rng(0))
    labels = [int(train[int(index)].target["label"]) for index in order]
    assert labels[0] == labels[1] != labels[2] == labels[3]
    default = LFW("train", root=lfw_root).order(np.random.default_rng(5))
    assert default.tolist() == np.random.default_rng(5).permutation(5).tolist()


def test_the_target_of_an_image_is_known_by_its_path(lfw_root: Path) -> None:
    train, val = LFW("train", root=lfw_root), LFW("val", root=lfw_root)
    for sample in (*(train[i] for i in range(len(train))), *(val[i] for i in range(len(val)))):
        assert train.target_of(sample.id, SIZE)["label"] == sample.target["label"]
    for other in ("lfw-deepfunneled/Eve/Eve_0001.jpg", "Ann/Ann_0001.jpg", "x.jpg", ""):
        assert train.target_of(other, SIZE)["label"] == -1
