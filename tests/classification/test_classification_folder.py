from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from mtframe.data import ClassCounts
from mtframe.errors import DataError, RecipeError
from mtframe_classification.image_folder import ImageFolder

WriteImage = Callable[..., None]


def _listed(data: ImageFolder) -> dict[str, int]:
    samples = [data[index] for index in range(len(data))]
    return {sample.id: int(sample.target["label"]) for sample in samples}


def test_each_folder_is_a_class_and_the_order_is_that_of_the_alphabet(folders: Path) -> None:
    train, val = ImageFolder("train", root=folders), ImageFolder("val", root=folders)
    assert train.info == val.info
    assert (train.info.counts, val.info.counts) == (ClassCounts((3, 2), (2, 3)), None)
    assert (train.info.target, train.info.classes) == ("label", ("cat", "dog"))
    assert _listed(train) == {
        "train/cat/a.jpg": 0, "train/cat/b.png": 0, "train/cat/far/c.JPG": 0,
        "train/dog/d.jpg": 1, "train/dog/e.jpg": 1,
    }  # fmt: skip
    assert _listed(val) == {"val/cat/f.jpg": 0, "val/dog/g.jpg": 1}
    sample = val[1]
    assert (tuple(sample.image.shape), sample.size, sample.index) == ((3, 10, 12), (10, 12), 1)
    with pytest.raises(IndexError, match="there are 2 images, no number 2"):
        val[2]


def test_a_label_is_found_by_path_and_none_is_guessed(folders: Path) -> None:
    data = pickle.loads(pickle.dumps(ImageFolder("train", root=folders)))  # noqa: S301
    assert data.target_of("train/dog/e.jpg", (10, 12))["label"].tolist() == 1
    for unknown in ("val/dog/g.jpg", "train/dog/e.jpg2", "", "z" * 99, "train/dog"):
        assert data.target_of(unknown, (10, 12))["label"].tolist() == -1


def test_without_a_val_folder_a_part_of_each_class_validates(tmp_path: Path, write_image: WriteImage) -> None:
    for name, count in {"cat": 10, "dog": 20, "owl": 1}.items():
        for number in range(count):
            write_image(tmp_path / name / f"{number}.jpg")
    train, val = (_listed(ImageFolder(split, root=tmp_path)) for split in ("train", "val"))
    assert not train.keys() & val.keys()
    assert len(train) + len(val) == 31
    assert [list(val.values()).count(label) for label in range(3)] == [2, 4, 0]
    # One more image moves no other from one split to the other, beyond the one it may take the place of.
    write_image(tmp_path / "dog" / "another.jpg")
    assert len(val.keys() - _listed(ImageFolder("val", root=tmp_path)).keys()) <= 1
    assert len(ImageFolder("train", root=tmp_path, val_part=0.0)) == 32
    with pytest.raises(RecipeError, match="no image for 'val' with val_part=0"):
        ImageFolder("val", root=tmp_path, val_part=0.0)
    with pytest.raises(RecipeError, match=r"has no 'test'; only CLASS/\*\.jpg, which is divided into train and val"):
        ImageFolder("test", root=tmp_path)


def test_train_and_test_alone_leave_val_to_be_held_out(tmp_path: Path, write_image: WriteImage) -> None:
    for number in range(10):
        write_image(tmp_path / "train" / "cat" / f"{number}.jpg")
        write_image(tmp_path / "train" / "dog" / f"{number}.jpg")
    write_image(tmp_path / "test" / "dog" / "0.jpg")
    lengths = [len(ImageFolder(split, root=tmp_path, val_part=0.3)) for split in ("train", "val", "test")]
    assert lengths == [14, 6, 1]
    assert _listed(ImageFolder("test", root=tmp_path)) == {"test/dog/0.jpg": 1}


def test_a_class_may_be_called_as_a_split(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("bus", "test", "train"):
        for number in range(5):
            write_image(tmp_path / name / f"{number}.jpg")
    data = ImageFolder("val", root=tmp_path)
    assert data.info.classes == ("bus", "test", "train")
    assert sorted(_listed(data).values()) == [0, 1, 2]
    with pytest.raises(RecipeError, match="has no 'test'; only CLASS"):
        ImageFolder("test", root=tmp_path)


def test_a_split_without_an_image_is_none(folders: Path) -> None:
    for name in ("cat/f.jpg", "dog/g.jpg"):
        (folders / "val" / name).unlink()
    with pytest.raises(RecipeError, match=r"split: '.*val' has no image for 'val'$"):
        ImageFolder("val", root=folders)


def test_val_may_lack_a_class_but_not_have_another_one(folders: Path, write_image: WriteImage) -> None:
    (folders / "val" / "cat" / "f.jpg").unlink()
    (folders / "val" / "cat").rmdir()
    assert _listed(ImageFolder("val", root=folders)) == {"val/dog/g.jpg": 1}
    write_image(folders / "val" / "dgo" / "h.jpg")
    with pytest.raises(DataError, match=r"val: 1 classes that .*: dgo\. Remove .* 'classes'; did you mean 'dog'"):
        ImageFolder("val", root=folders)


def test_classes_can_be_chosen(folders: Path, write_image: WriteImage) -> None:
    write_image(folders / "train" / "owl" / "o.jpg")
    data = ImageFolder("train", root=folders, classes=("owl", "cat"))
    assert data.info.classes == ("owl", "cat")
    assert sorted(_listed(data).values()) == [0, 1, 1, 1]
    assert data.notes == (f"{folders / 'train'}: 1 folders are no class of 'classes'; left out",)
    with pytest.raises(RecipeError, match=r"classes: .*train' has no folder 'dgo'; did you mean 'dog'"):
        ImageFolder("train", root=folders, classes=("cat", "dgo"))
    with pytest.raises(RecipeError, match="classes: 'cat' stands twice"):
        ImageFolder("train", root=folders, classes=("cat", "cat"))


def test_a_run_is_evaluated_where_the_training_images_are_not(folders: Path) -> None:
    (folders / "train").rename(folders.parent / "elsewhere")
    with pytest.raises(RecipeError, match=r"classes: there is no folder '.*train' that would tell them; name them"):
        ImageFolder("val", root=folders)
    assert _listed(ImageFolder("val", root=folders, classes=("cat", "dog")))["val/dog/g.jpg"] == 1


def test_mistakes_are_named(folders: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(RecipeError, match=re.escape(f"root: no folder '{missing}'. Make one with: mtframe data synth")):
        ImageFolder("train", root=missing)
    with pytest.raises(RecipeError, match="split: image-folder has no 'valid'; it has train, val, test"):
        ImageFolder("valid", root=folders)
    with pytest.raises(RecipeError, match=r"split: .* has no 'test'; it has train, val"):
        ImageFolder("test", root=folders)
    with pytest.raises(RecipeError, match="val_part: must be 0 or more and below 1, got 1"):
        ImageFolder("val", root=folders, val_part=1.0)
    (folders / "train" / "owl").mkdir()
    with pytest.raises(DataError, match=r"1 classes have no image to learn from: owl\. Images end in \.avif"):
        ImageFolder("train", root=folders)
    (tmp_path / "flat" / "one").mkdir(parents=True)
    with pytest.raises(DataError, match="flat: expected a folder for each of two or more classes, found 1"):
        ImageFolder("train", root=tmp_path / "flat")


def test_pictures_are_turned_upright_as_they_are_in_predictions(folders: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (20, 10)).save(folders / "train" / "cat" / "a.jpg", exif=exif)
    sample = ImageFolder("train", root=folders)[0]
    assert (sample.image.shape, sample.size) == ((3, 20, 10), (20, 10))
