from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from converted import voc_xml, write
from mtframe.errors import BadImageError, DataError, RecipeError
from mtframe_detection.voc import Voc

Box = tuple[Any, ...]


def add(root: Path, split: str, name: str, *objects: Box) -> None:
    """An image 100 wide and 80 high, its xml, and its name on a list."""
    write(root / f"Annotations/{name}.xml", voc_xml(objects))
    (root / "JPEGImages").mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / f"JPEGImages/{name}.jpg")
    names = root / f"ImageSets/Main/{split}.txt"
    write(names, (names.read_text(encoding="utf-8") if names.exists() else "") + f"{name}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    add(root, "train", "a", ("dog", 11, 21, 30, 60), ("cat", 1, 1, 100, 80, "<truncated>1</truncated>"))
    add(root, "train", "b")
    add(root, "val", "c", ("cat", 5, 5, 5, 5))
    return root


def test_gives_boxes_in_original_pixels_from_zero(root: Path) -> None:
    data = Voc("train", root=root)
    assert (data.info.target, len(data.info.classes), data.notes) == ("boxes", 20, ())
    sample = data[0]
    assert sample.image.shape == (3, 80, 100)
    assert (sample.size, sample.index, sample.id) == ((80, 100), 0, "JPEGImages/a.jpg")
    # VOC's pixels are counted from 1, and the last one belongs to the box.
    assert sample.target["boxes"].tolist() == [[10, 20, 30, 60], [0, 0, 100, 80]]
    assert sample.target["boxes"].dtype == torch.float64
    assert [data.info.classes[label] for label in sample.target["labels"]] == ["dog", "cat"]
    assert sample.target["area"].tolist() == [800, 8000]
    assert sample.target["annotation_id"].tolist() == [1, 2]
    assert torch.equal(data.annotated(0).target["boxes"], sample.target["boxes"])
    # One pixel.
    assert Voc("val", root=root)[0].target["boxes"].tolist() == [[4, 4, 5, 5]]


def test_images_without_objects_are_kept_or_left_out_of_training(root: Path) -> None:
    assert [len(sample.target["boxes"]) for sample in Voc("train", root=root)] == [2, 0]
    assert [sample.id for sample in Voc("train", root=root, keep_empty=False)] == ["JPEGImages/a.jpg"]
    add(root, "val", "c")
    assert [len(sample.target["boxes"]) for sample in Voc("val", root=root, keep_empty=False)] == [0]


def test_difficult_objects_are_ignored_and_parts_are_not_objects(root: Path) -> None:
    head = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
    add(root, "val", "d", ("person", 1, 1, 50, 50, head), ("person", 60, 1, 90, 50, "<difficult>1</difficult>"))
    target = Voc("val", root=root)[1].target
    assert target["boxes"].tolist() == [[0, 0, 50, 50], [59, 0, 90, 50]]
    assert target["crowd"].tolist() == [False, True]


def test_boxes_are_clipped_left_out_and_kept_once(root: Path) -> None:
    add(root, "test", "d", ("cat", 0, -3, 10.5, 20), ("cat", 0, -3, 10.5, 20), ("dog", 150, 1, 160, 9))
    data = Voc("test", root=root)
    assert data[0].target["boxes"].tolist() == [[0, 0, 10.5, 20]]
    assert data.notes == (
        "test: 1 boxes have no area inside their image; left out",
        "test: 1 boxes stand twice on one image; kept once",
    )


def test_classes_are_voc_or_found_or_named(root: Path) -> None:
    add(root, "test", "d", ("zebra & foal", 1, 1, 5, 5))
    # Those of all splits, so that every split has the same.
    assert Voc("train", root=root, classes="found").info.classes == ("cat", "dog", "zebra & foal")
    assert Voc("train", root=root, classes=("dog", "cat")).annotated(0).target["labels"].tolist() == [0, 1]
    for wrong in ((), ("cat", "cat")):
        with pytest.raises(RecipeError, match=r"classes: expected 'voc', 'found' or names that differ, got \["):
            Voc("train", root=root, classes=wrong)
    with pytest.raises(DataError, match=r"d\.xml: class 'zebra & foal' is not among the 20; name them with the option"):
        Voc("test", root=root)


def test_other_lists(root: Path) -> None:
    write(root / "ImageSets/Main/trainval.txt", "a  1\nb -1\nc  0\n\nc\n")
    assert len(Voc("train", root=root, train="trainval")) == 3
    with pytest.raises(RecipeError, match=r"voc: no list 'test': no file '.*Main/test\.txt'"):
        Voc("test", root=root)
    with pytest.raises(RecipeError, match=r"val: expected the name of a list in ImageSets/Main, got '\.\./x'"):
        Voc("val", root=root, val="../x")


def test_years_are_taken_together_or_chosen(tmp_path: Path) -> None:
    for year in (2007, 2012):
        add(tmp_path / f"VOCdevkit/VOC{year}", "train", f"{year}_1", ("cat", 1, 1, 9, 9))
    add(tmp_path / "VOCdevkit/VOC2007", "test", "2007_2", ("cat", 1, 1, 9, 9))
    both = ["VOCdevkit/VOC2007/JPEGImages/2007_1.jpg", "VOCdevkit/VOC2012/JPEGImages/2012_1.jpg"]
    assert [sample.id for sample in Voc("train", root=tmp_path)] == both
    assert [sample.id for sample in Voc("train", root=tmp_path, years=(2012,))] == both[1:]
    assert len(Voc("test", root=tmp_path / "VOCdevkit")) == 1
    with pytest.raises(RecipeError, match=r"^years: not all are there; '.*' has VOC2007, VOC2012$"):
        Voc("train", root=tmp_path, years=(2007, 2010))
    with pytest.raises(RecipeError, match=r"^years: '.*VOC2007' is not divided into years"):
        Voc("train", root=tmp_path / "VOCdevkit/VOC2007", years=(2007,))


def test_pictures_may_be_of_another_kind(root: Path) -> None:
    Image.new("RGB", (100, 80)).save(root / "JPEGImages/a.png")
    (root / "JPEGImages/a.jpg").unlink()
    assert Voc("train", root=root)[0].id == "JPEGImages/a.png"
    (root / "JPEGImages/a.png").unlink()
    with pytest.raises(BadImageError, match=r"a\.jpg: No such file"):
        Voc("train", root=root)[0]


def test_an_image_of_another_size_is_refused_alone(root: Path) -> None:
    write(root / "Annotations/a.xml", voc_xml([], size=(100, 80)))
    data = Voc("train", root=root)
    with pytest.raises(BadImageError, match="is 100x80, but its annotations are for 80x100"):
        data[0]
    assert data[1].size == (80, 100)


# Ten times ten times ... as large: with ten more lines more than any memory holds.
LAUGHS = "<!DOCTYPE a [<!ENTITY l0 'lol'>" + "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS + "]><annotation><size>&l9;</size></annotation>", r"declares entities, which are not supported"),
        ("<annotation>&l9;</annotation>", "not an xml file, perhaps truncated"),
        (voc_xml([])[:-5], "not an xml file, perhaps truncated"),
        ("", "not an xml file"),
        (voc_xml([], size=(0, 100)), "size: expected whole numbers of pixels, got 100x0"),
        (voc_xml([], size=(80.5, 100)), "size: expected whole numbers of pixels, got 100x80.5"),
        (voc_xml([], size=(1e300, 100)), "size: expected whole numbers of pixels, got 100x1e"),
        (voc_xml([("cat", 1, 1, "x", 5)]), r"object 1 \(cat\): bndbox/xmax: expected a number, got 'x'"),
        (voc_xml([("cat", 1, 1, 5, "nan")]), r"object 1 \(cat\): bndbox/ymax: expected a number, got 'nan'"),
        (
            voc_xml([("cat", 1, 1, 5, 5), ("dog", 9, 1, 5, 5)]),
            r"object 2 \(dog\): the box has a negative side: 9 1 5 5",
        ),
        (voc_xml([("", 1, 1, 5, 5)]), "object 1: has no name"),
        (
            voc_xml([("cat", 1, 1, 5, 5, "<difficult>yes</difficult>")]),
            r"object 1 \(cat\): difficult: expected 0 or 1, got 'yes'",
        ),
        (voc_xml([("Cat", 1, 1, 5, 5)]), "class 'Cat' is not among the 20"),
    ],
)
def test_a_wrong_xml_is_named(root: Path, text: str, message: str) -> None:
    write(root / "Annotations/c.xml", text)
    with pytest.raises(
        DataError, match=rf"voc val: 1 (of 1 images would have|things are wrong).*\n  .*c\.xml: {message}"
    ):
        Voc("val", root=root)
    if "Cat" not in text:
        with pytest.raises(DataError, match=rf"1 of 1 images would have to be left out.*\n  .*c\.xml: {message}"):
            Voc("val", root=root, classes="found")


def test_a_file_of_another_encoding_cannot_hide_entities(root: Path) -> None:
    (root / "Annotations/c.xml").write_bytes((LAUGHS + "]><annotation>&l9;</annotation>").encode("utf-16"))
    with pytest.raises(DataError, match=r"c\.xml: not a text file \(expected UTF-8\)"):
        Voc("val", root=root)


def test_missing_files_are_counted_and_the_first_named(root: Path) -> None:
    write(root / "ImageSets/Main/val.txt", "c\n" + "\n".join(f"x{n}" for n in range(9)))
    with pytest.raises(
        DataError, match=r"9 of 10 images .*\n  .*x0\.xml: No such file or directory\n(.*\n){2}  \.\.\. and 6 more$"
    ):
        Voc("val", root=root)
    write(root / "ImageSets/Main/val.txt", "\n")
    with pytest.raises(DataError, match=r"val\.txt: no images are listed"):
        Voc("val", root=root)


@pytest.mark.parametrize("name", ["../c", "/etc/passwd", "a/../../c", "C:\\x", "..\\x"])
def test_names_cannot_lead_out_of_the_folder(root: Path, name: str) -> None:
    write(root / "ImageSets/Main/val.txt", f"c\n{name}\n")
    with pytest.raises(DataError, match=r"val\.txt: 1 of 2 names would have to be .*\n  .* leads out of '"):
        Voc("val", root=root)


def test_what_is_no_voc_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^root: no folder '.*nowhere'"):
        Voc("train", root=tmp_path / "nowhere")
    with pytest.raises(RecipeError, match=r"^root: not in VOC's layout; '.*' has neither Annotations nor VOC2007"):
        Voc("train", root=tmp_path)
    with pytest.raises(RecipeError, match="voc: no split 'trainval'; it has train, val, test"):
        Voc("trainval", root=tmp_path)


def test_1500_boxes_an_image_are_read_and_small(root: Path) -> None:
    add(root, "test", "d", *(("cat", n % 50 * 2 + 1, n // 50 * 2 + 1, n % 50 * 2 + 1, n // 50 * 2 + 1)
                             for n in range(1500)))  # fmt: skip
    data = Voc("test", root=root)
    boxes = data[0].target["boxes"]
    assert boxes.shape == (1500, 4)
    assert torch.equal(boxes[:, 2:] - boxes[:, :2], torch.ones(1500, 2).double())
    assert len(pickle.dumps(data)) < 1500 * 80
