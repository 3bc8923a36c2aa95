"""Formats of boxes as tools write them: names, lists, sizes, wrong lines, pictures that are stored turned."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from converted import voc_xml, write
from mtframe import omissions
from mtframe.errors import DataError, RecipeError
from mtframe_detection.annotations import AnnotatedImages
from mtframe_detection.average_precision import CocoAP
from mtframe_detection.boxes import Boxes
from mtframe_detection.coco import Coco
from mtframe_detection.voc import Voc
from mtframe_detection.yolo import Yolo


def picture(path: Path, size: tuple[int, int] = (100, 80), orientation: int = 1) -> None:
    """A picture with a bright upper left quarter, of (width, height) as it is stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 255
    exif = Image.Exif()
    if orientation != 1:
        exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def write_yolo(root: Path, images: int = 30, **files: str) -> Path:
    for number in range(images):
        picture(root / "images" / "train" / f"{number:02}.png", (10, 8))
        write(root / "labels" / "train" / f"{number:02}.txt", "0 0.5 0.5 0.2 0.25\n1 0.5 0.5 0.5 0.5\n")
    for name, text in files.items():
        write(root / "labels" / "train" / f"{name}.txt", text)
    write(root / "data.yaml", "names: [cat, dog]\ntrain: images/train\n")
    return root


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("names: [cat, dog]", ("cat", "dog")),
        ("names: {0: cat, 1: dog}", ("cat", "dog")),
        ("names: {'1': dog, '0': cat}", ("cat", "dog")),
        ("nc: 2", ("class_0", "class_1")),
        ("nc: 2\nnames: ['0', '1']", ("0", "1")),
    ],
)
def test_yolo_names_classes_in_several_ways(tmp_path: Path, yaml: str, names: tuple[str, ...]) -> None:
    write_yolo(tmp_path, 1)
    write(tmp_path / "data.yaml", f"{yaml}\ntrain: images/train\n")
    assert Yolo("train", root=tmp_path).info.classes == names


def test_yolo_without_names_numbers_its_classes(tmp_path: Path) -> None:
    write_yolo(tmp_path, 3, **{"02": "4 0.5 0.5 0.2 0.25"})
    (tmp_path / "data.yaml").unlink()
    for name in ("images", "labels"):
        shutil.copytree(tmp_path / name / "train", tmp_path / name / "val")
    (tmp_path / "labels" / "val" / "02.txt").unlink()
    train, val = (Yolo(split, root=tmp_path) for split in ("train", "val"))
    # Of all splits, as all need the same ones.
    assert train.info.classes == val.info.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert train.notes == ("nothing names the classes; they are called class_0 to class_4, as labels number them",)
    assert Yolo.recognises(tmp_path) == {}
    assert Yolo("train", root=tmp_path, classes=tuple("abcde")).info.classes == tuple("abcde")


def test_yolo_images_and_labels_without_splits(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "images" / f"{number}.png", (10, 8))
        write(tmp_path / "labels" / f"{number}.txt", "1 0.5 0.5 0.2 0.25\n")
    assert Yolo.recognises(tmp_path) == {}
    train, val = (Yolo(split, root=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val), train.info.classes) == (8, 2, ("class_0", "class_1"))
    assert sorted(train.ids() + val.ids()) == [f"images/{number}.png" for number in range(10)]
    assert [len(sample.target["boxes"]) for sample in val] == [1, 1]
    assert "val: no folders of splits; 2 of 10 images, by val_part=0.2" in val.notes
    assert len(Yolo("val", root=tmp_path, val_part=0.5)) == 5
    with pytest.raises(RecipeError, match=r"no split 'test': .*images' has images and no folders of splits"):
        Yolo("test", root=tmp_path)


def test_images_and_labels_of_something_else_are_not_yolo_s(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train" / "a.png")
    write(tmp_path / "labels" / "train" / "a.txt", "a cat on a mat\n")
    assert Yolo.recognises(tmp_path) is None
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    assert Yolo.recognises(tmp_path) is None
    with pytest.raises(DataError, match="nothing says what the classes are called"):
        Yolo("train", root=tmp_path)


@pytest.mark.parametrize("count", ["0", "-1", "2.5", "true", "10000000", "many"])
def test_yolo_refuses_what_is_no_number_of_classes(tmp_path: Path, count: str) -> None:
    write_yolo(tmp_path, 1)
    write(tmp_path / "data.yaml", f"nc: {count}\ntrain: images/train\n")
    with pytest.raises(DataError, match="nc: expected a number of classes, 1 to 100000"):
        Yolo("train", root=tmp_path)


@pytest.mark.parametrize("key", ["val", "valid", "validation"])
def test_yolo_reads_a_split_by_any_name(tmp_path: Path, key: str) -> None:
    write_yolo(tmp_path, 2)
    write(tmp_path / "data.yaml", f"names: [cat, dog]\ntrain: images/train\n{key}: images/train\n")
    assert len(Yolo("val", root=tmp_path)) == 2
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "images" / "train").rename(tmp_path / "images" / key)
    (tmp_path / "labels" / "train").rename(tmp_path / "labels" / key)
    data = Yolo("val", root=tmp_path, classes=("cat", "dog"))
    assert [len(sample.target["boxes"]) for sample in data] == [2, 2]


def test_of_two_splits_of_one_meaning_the_unused_one_is_said(tmp_path: Path) -> None:
    write_yolo(tmp_path, 1)
    write(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: images/train\nval: images/train\nvalid: images/train\n")
    assert "val: 'val' is taken, and 'valid' is not used" in Yolo("val", root=tmp_path).notes


def test_one_bad_line_in_thirty_files_costs_its_image(tmp_path: Path) -> None:
    write_yolo(tmp_path, **{"07": "0 0.5 0.5 0.2 0.25\n0 0.5 nan 0.2 0.25\n"})
    data = Yolo("train", root=tmp_path)
    assert len(data) == 29
    assert "images/train/07.png" not in data.ids()
    assert data.omitted["images whose labels are wrong"] == 1
    assert len(data.notes) == 1
    assert "1 of 30 images are left out, since their labels are wrong" in data.notes[0]
    assert "07.txt, line 2: expected finite numbers" in data.notes[0]
    # What comes after it keeps its own boxes.
    assert [len(sample.target["boxes"]) for sample in data] == [2] * 29


@pytest.mark.parametrize(("bad", "part"), [(2, 0.05), (1, 0.0)])
def test_more_bad_files_than_allowed_end_it(tmp_path: Path, bad: int, part: float) -> None:
    write_yolo(tmp_path, **{f"{number:02}": "9 0.5 0.5 0.2 0.25" for number in range(bad)})
    most = int(part > 0)
    with pytest.raises(
        DataError, match=rf"{bad} of 30 images would have to be .* labels are wrong; at most {most} may be"
    ):
        Yolo("train", root=tmp_path, bad_labels=part)
    assert len(Yolo("train", root=tmp_path, bad_labels=0.1)) == 30 - bad
    with pytest.raises(RecipeError, match="bad_labels: must be 0 or more and below 1, got 1"):
        Yolo("train", root=tmp_path, bad_labels=1.0)


@pytest.mark.parametrize(("images", "bad"), [(30, 1), (10, 1), (3, 1), (40, 2), (100, 5)])
def test_one_bad_file_costs_its_image_in_a_small_split_too(tmp_path: Path, images: int, bad: int) -> None:
    assert (omissions.most_wrong(images, 0.05), omissions.most_wrong(2, 0.05)) == (bad, 0)
    if images > 10:
        return
    write_yolo(tmp_path, images, **{"01": "9 0.5 0.5 0.2 0.25"})
    assert len(Yolo("train", root=tmp_path)) == images - 1
    write(tmp_path / "labels" / "train" / "00.txt", "nonsense")
    with pytest.raises(DataError, match=f"2 of {images} images would have to be .* labels are wrong; at most 1 may be"):
        Yolo("train", root=tmp_path)


def write_coco(root: Path, images: int = 30, roboflow: bool = False, **more: Any) -> dict[str, Any]:
    folder = root / ("train" if roboflow else "train2017")
    for number in range(images):
        picture(folder / f"{number}.png", (10, 8))
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 10} for n in range(images)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": n // 2, "category_id": 1 + n % 2, "bbox": [1 + n % 2, 2, 3, 4]}
            for n in range(2 * images)
        ],
        **more,
    }
    save(root, content, roboflow)
    return content


def save(root: Path, content: dict[str, Any], roboflow: bool = False) -> None:
    name = "train/_annotations.coco.json" if roboflow else "annotations/instances_train2017.json"
    write(root / name, json.dumps(content))


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("bbox", [1, 2, -3, 4], "bbox [1, 2, -3, 4] has a negative side"),
        ("bbox", [1, float("nan"), 3, 4], "is not finite"),
        ("bbox", "all of it", "bbox should be four numbers, got 'all of it'"),
        ("category_id", None, "category_id should be a whole number, got None"),
        ("iscrowd", 2, "iscrowd should be 0 or 1, got 2"),
    ],
)
def test_one_bad_annotation_in_thirty_images_costs_its_image(tmp_path: Path, field: str, value: Any, why: str) -> None:
    content = write_coco(tmp_path)
    content["annotations"][14][field] = value
    save(tmp_path, content)
    data = Coco("train", root=tmp_path)
    assert len(data) == 29
    assert "train2017/7.png" not in data.ids()
    assert data.omitted == {"images whose labels are wrong": 1}
    assert why in data.notes[0]
    assert data.annotations.annotation_ids.tolist() == [n for n in range(60) if n not in (14, 15)]
    assert [int(sample.target["image_id"]) for sample in data] == [n for n in range(30) if n != 7]
    with pytest.raises(DataError, match="these records are wrong"):
        Coco("train", root=tmp_path, bad_labels=0)


def test_roboflows_layout_and_its_category_above_all_others(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "pets-x1y2", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets-x1y2"},
        {"id": 2, "name": "dog", "supercategory": "pets-x1y2"},
    ]
    content = write_coco(tmp_path, 2, roboflow=True, categories=categories)
    (tmp_path / "valid").mkdir()
    picture(tmp_path / "valid" / "0.png", (10, 8))
    one = {**content, "images": content["images"][:1], "annotations": content["annotations"][:1]}
    write(tmp_path / "valid" / "_annotations.coco.json", json.dumps(one))
    for split, count in (("train", 2), ("val", 1)):
        data = Coco(split, root=tmp_path)
        assert (data.info.classes, data.category_ids, len(data)) == (("cat", "dog"), (1, 2), count)
        assert "category 0 is the parent of all others" in data.notes[0]
        assert data[0].target["labels"].tolist() == [0, 1][:count]
    # Labelled with in training, it is a class of all splits.
    content["annotations"][0]["category_id"] = 0
    save(tmp_path, content, roboflow=True)
    for split in ("train", "val"):
        assert Coco(split, root=tmp_path).category_ids == (0, 1, 2)


def test_categories_of_coco_itself_are_not_above_one_another(tmp_path: Path) -> None:
    categories = [
        {"id": 1, "name": "cat", "supercategory": "animal"},
        {"id": 2, "name": "dog", "supercategory": "animal"},
    ]
    write_coco(tmp_path, 1, categories=categories)
    assert Coco("train", root=tmp_path).category_ids == (1, 2)


def write_voc(root: Path, names: str = "abcde", lists: bool = True, **xml: str) -> Path:
    for name in names:
        picture(root / "JPEGImages" / f"{name}.png")
        write(root / "Annotations" / f"{name}.xml", xml.get(name, voc_xml([("dog", 11, 21, 30, 60)])))
    if lists:
        write(root / "ImageSets" / "Main" / "train.txt", "\n".join(names))
    return root


def test_lists_of_voc_with_flags_suffixes_and_blanks(tmp_path: Path) -> None:
    write_voc(tmp_path)
    for name in ("img 1", "the last"):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        write(tmp_path / "Annotations" / f"{name}.xml", voc_xml([("cat", 1, 1, 5, 5)]))
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a  1\nb -1\nc 0\nd.png\na\nimg 1\nthe last -1\n")
    assert Voc("train", root=tmp_path).ids() == [
        "JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/c.png", "JPEGImages/d.png", "JPEGImages/img 1.jpg",
        "JPEGImages/the last.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size/>"])
def test_voc_without_a_size_takes_the_images_own(tmp_path: Path, size: str) -> None:
    text = voc_xml([("dog", 11, 21, 30, 60)])
    before, _, after = text.partition("<size>")
    write_voc(tmp_path, a=before + size + after.partition("</size>")[2])
    sample = Voc("train", root=tmp_path)[0]
    assert sample.size == (80, 100)
    assert sample.target["boxes"].tolist() == [[10, 20, 30, 60]]


def test_voc_without_lists_holds_out_a_part(tmp_path: Path) -> None:
    write_voc(tmp_path, "abcdefghij", lists=False)
    train, val = (Voc(split, root=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (8, 2)
    assert sorted(train.ids() + val.ids()) == [f"JPEGImages/{name}.png" for name in "abcdefghij"]
    assert "2 of 10 images, by val_part=0.2" in val.notes[0]
    assert len(Voc("val", root=tmp_path, val_part=0.5)) == 5
    with pytest.raises(RecipeError, match="no split 'test'"):
        Voc("test", root=tmp_path)


def test_what_no_split_has_is_counted_once(tmp_path: Path) -> None:
    write_voc(tmp_path, "abcdefghij", lists=False, c="<annotation>")
    picture(tmp_path / "JPEGImages" / "bare.png")
    splits = {split: Voc(split, root=tmp_path, classes="found").omitted for split in ("train", "val")}
    assert sum(omitted.get("images without an xml file", 0) for omitted in splits.values()) == 1
    assert sum(omitted.get("images whose labels are wrong", 0) for omitted in splits.values()) == 1


def test_a_split_that_is_not_there_is_named_as_the_layout_has_it(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", 2, roboflow=True)
    with pytest.raises(RecipeError, match=re.escape(str(tmp_path / "a" / "test" / "_annotations.coco.json"))):
        Coco("test", root=tmp_path / "a")
    write_coco(tmp_path / "b", 2)
    with pytest.raises(RecipeError, match=re.escape(str(tmp_path / "b" / "annotations" / "instances_test2017.json"))):
        Coco("test", root=tmp_path / "b")
    write_yolo(tmp_path / "c", 1)
    (tmp_path / "c" / "data.yaml").unlink()
    (tmp_path / "c" / "train").mkdir()
    for name in ("images", "labels"):
        (tmp_path / "c" / name / "train").rename(tmp_path / "c" / "train" / name)
        (tmp_path / "c" / name).rmdir()
    with pytest.raises(RecipeError, match=re.escape(f"no folder '{tmp_path / 'c' / 'test' / 'images'}'")):
        Yolo("test", root=tmp_path / "c", classes=("cat", "dog"))


def test_voc_beside_the_images_in_folders_of_splits(tmp_path: Path) -> None:
    for split, names in (("train", "abc"), ("valid", "de")):
        for name in names:
            picture(tmp_path / split / f"{name}.jpg")
            write(tmp_path / split / f"{name}.xml", voc_xml([("gnu" if name == "e" else "ox", 1, 1, 5, 5)]))
    write(tmp_path / "train" / "._a.xml", "what macOS leaves")
    (tmp_path / "export").mkdir()
    picture(tmp_path / "train" / "bare.jpg")
    train, val = (Voc(split, root=tmp_path, classes="found") for split in ("train", "val"))
    assert train.info.classes == val.info.classes == ("gnu", "ox")
    assert (train.ids(), val.ids()) == (["train/a.jpg", "train/b.jpg", "train/c.jpg"], ["valid/d.jpg", "valid/e.jpg"])
    assert train.omitted == {"images without an xml file": 1}
    assert "'export'" in train.notes[0]


def test_one_bad_xml_in_thirty_costs_its_image(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(30)]
    write_voc(tmp_path, names, **{"07": "<annotation>"})  # type: ignore[arg-type]
    data = Voc("train", root=tmp_path)
    assert len(data) == 29
    assert "07.xml: not an xml file" in data.notes[0]
    # A class that is not known is no slip of one file.
    write(tmp_path / "Annotations" / "07.xml", voc_xml([("gnu", 1, 1, 5, 5)]))
    with pytest.raises(DataError, match="class 'gnu' is not among the 20"):
        Voc("train", root=tmp_path)


# --- pictures that are stored turned: 60 x 40 as stored, 40 x 60 as seen (orientation 6) ---


def turned_coco(root: Path, sizes: list[tuple[int, int, int, int, int]]) -> Path:
    """Pictures by (stored width, stored height, orientation, width and height that the labels are for)."""
    for number, (width, height, orientation, *_) in enumerate(sizes):
        picture(root / "train2017" / f"{number}.jpg", (width, height), orientation)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": w, "height": h} for n, (*_, w, h) in enumerate(sizes)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4]} for n in range(len(sizes))]
    save(root, {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    return root


def is_bright(data: AnnotatedImages, index: int) -> list[bool]:
    """Whether the corners of a picture are: upper left, upper right, lower left, lower right."""
    image = data[index].image.float().mean(0)
    return [bool(image[row, column] > 128) for row in (2, -3) for column in (2, -3)]


STORED, SEEN = [True, False, False, False], [False, True, False, False]


def test_the_orientation_that_fits_the_labels_is_taken(tmp_path: Path) -> None:
    root = turned_coco(tmp_path, [(60, 40, 6, 40, 60), (60, 40, 6, 60, 40), (60, 40, 1, 60, 40)])
    data = Coco("train", root=root)
    assert [data[number].image.shape for number in range(3)] == [(3, 60, 40), (3, 40, 60), (3, 40, 60)]
    assert [is_bright(data, number) for number in range(3)] == [SEEN, STORED, STORED]
    assert data.notes == (
        "coco train: of 3 pictures looked at, 2 are stored turned (EXIF): 1 labelled as they are seen, 1 labelled as "
        "they are stored. The option 'orientation' says otherwise",
    )
    assert [sample.size for sample in pickle.loads(pickle.dumps(data))] == [(60, 40), (40, 60), (40, 60)]  # noqa: S301


def test_squares_go_with_the_others_or_with_the_option(tmp_path: Path) -> None:
    others = [(60, 40, 6, 40, 60)] * 2
    root = turned_coco(tmp_path / "a", [(40, 40, 6, 40, 40), *others])
    assert is_bright(Coco("train", root=root), 0) == SEEN
    assert is_bright(Coco("train", root=root, orientation="stored"), 0) == STORED
    root = turned_coco(tmp_path / "b", [(40, 40, 6, 40, 40)])
    data = Coco("train", root=root)
    assert is_bright(data, 0) == STORED
    assert "1 labelled for a size that fits both, taken as stored" in data.notes[0]
    assert is_bright(Coco("train", root=root, orientation="upright"), 0) == SEEN


def test_an_upside_down_picture_is_like_a_square(tmp_path: Path) -> None:
    root = turned_coco(tmp_path, [(60, 40, 3, 60, 40), (60, 40, 6, 40, 60)])
    # Orientation 3: turned by half a circle.
    assert is_bright(Coco("train", root=root), 0) == [False, False, False, True]


def test_a_size_that_fits_neither_way_is_an_unreadable_image(tmp_path: Path) -> None:
    root = turned_coco(tmp_path, [(60, 40, 6, 50, 60)])
    with pytest.raises(DataError, match="is 60x40, but its annotations are for 50x60"):
        Coco("train", root=root)[0]


def test_voc_takes_the_orientation_that_fits(tmp_path: Path) -> None:
    write_voc(
        tmp_path, "ab", a=voc_xml([("dog", 1, 1, 30, 60)], (60, 40)), b=voc_xml([("dog", 1, 1, 30, 30)], (40, 60))
    )
    for name in "ab":
        (tmp_path / "JPEGImages" / f"{name}.png").unlink()
        picture(tmp_path / "JPEGImages" / f"{name}.jpg", (60, 40), 6)
    data = Voc("train", root=tmp_path)
    assert [is_bright(data, number) for number in range(2)] == [SEEN, STORED]


def test_voc_without_a_size_goes_by_the_boxes(tmp_path: Path) -> None:
    bare = "<annotation>{}</annotation>"
    thing = voc_xml([("dog", 1, 1, 30, 55)]).partition("<object>")[2].partition("</object>")[0]
    write_voc(tmp_path, "a", a=bare.format(f"<object>{thing}</object>"))
    (tmp_path / "JPEGImages" / "a.png").unlink()
    picture(tmp_path / "JPEGImages" / "a.jpg", (60, 40), 6)
    # 55 pixels down are more than the 40 that are stored.
    assert is_bright(Voc("train", root=tmp_path), 0) == SEEN


def test_yolo_labels_are_for_what_is_seen(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, 1)
    (root / "images" / "train" / "00.png").unlink()
    picture(root / "images" / "train" / "00.jpg", (60, 40), 6)
    data = Yolo("train", root=root)
    assert data[0].size == data.annotated(0).size == (60, 40)
    assert is_bright(data, 0) == SEEN
    stored = Yolo("train", root=root, orientation="stored")
    assert stored[0].size == stored.annotated(0).size == (40, 60)
    # Another task's reader that does not turn it gets no boxes of another picture.
    with pytest.raises(DataError, match="is 60x40 where it is read, and 40x60 as it is labelled"):
        data.target_of("images/train/00.jpg", (40, 60))
    assert torch.equal(data.target_of("images/train/00.jpg", (60, 40))["boxes"], data[0].target["boxes"])


def test_boxes_without_an_area_are_scored_by_their_own(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    data = Coco("train", root=tmp_path)
    samples = list(data)
    wanted = CocoAP(data.info, data)
    wanted.update([Boxes(data.info).perfect(sample) for sample in samples], samples)
    for sample in samples:
        del sample.target["area"]
    metric = CocoAP(data.info, data)
    metric.update([Boxes(data.info).perfect(sample) for sample in samples], samples)
    assert metric.compute() == pytest.approx(wanted.compute(), nan_ok=True)
