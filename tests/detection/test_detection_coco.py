from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mtframe.data import DecodeSize
from mtframe.errors import BadImageError, DataError, RecipeError
from mtframe_detection.coco import Coco

WriteCoco = Callable[..., Path]


def change(root: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_gives_boxes_in_original_pixels_with_labels_in_category_order(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100), (60, 40)], [[1, 7, 1, 2, 10, 20], [0, 90, 5, 6, 7, 8.5], [1, 3, 0, 0, 40, 60]])
    data = Coco("train", root=root)
    assert data.info.target == "boxes"
    assert data.info.classes == ("cat", "dog", "bird")
    assert data.category_ids == (3, 7, 90)
    sample = data[1]
    assert sample.image.shape == (3, 60, 40)
    assert sample.image.dtype == torch.uint8
    assert (sample.size, sample.index, sample.id) == ((60, 40), 1, "train2017/000000000001.jpg")
    assert sample.target["boxes"].tolist() == [[1, 2, 11, 22], [0, 0, 40, 60]]
    assert sample.target["labels"].tolist() == [1, 0]
    assert sample.target["area"].tolist() == [200, 2400]
    assert sample.target["annotation_id"].tolist() == [500, 502]
    assert int(sample.target["image_id"]) == 101
    assert data[0].target["boxes"].tolist() == [[5, 6, 12, 14.5]]


def test_crowd_regions_areas_and_string_free_records(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100)], [[0, 7, 1, 2, 10, 20], [0, 7, 0, 0, 50, 50]])

    def edit(content: dict[str, Any]) -> None:
        content["annotations"][1].update(iscrowd=1, area=77.5, segmentation={"counts": [1, 2, 3], "size": [80, 100]})
        content["annotations"][0].update(segmentation=[[0, 0, 1, 1, 2, 2]], from_yolo=True)

    change(root, edit)
    target = Coco("train", root=root)[0].target
    assert target["crowd"].tolist() == [False, True]
    assert target["area"].tolist() == [200, 77.5]


def test_images_without_boxes_are_kept_or_left_out_of_training(write_coco: WriteCoco) -> None:
    sizes, boxes = [(20, 20)] * 3, [[2, 7, 1, 2, 10, 10]]
    root = write_coco(sizes, boxes)
    write_coco(sizes, boxes, split="val")
    assert [len(sample.target["boxes"]) for sample in Coco("train", root=root)] == [0, 0, 1]
    assert Coco("train", root=root)[0].target["boxes"].shape == (0, 4)
    lean = Coco("train", root=root, keep_empty=False)
    assert len(lean) == 1
    assert lean[0].id == "train2017/000000000002.jpg"
    assert lean[0].index == 0
    assert len(Coco("val", root=root, keep_empty=False)) == 3
    with pytest.raises(IndexError, match="no sample 1, there are 1"):
        lean[1]


def test_boxes_without_area_and_repeated_ones_are_left_out_and_counted(write_coco: WriteCoco) -> None:
    root = write_coco(
        [(80, 100)],
        [
            [0, 7, 1, 2, 0, 20],  # no width
            [0, 7, 150, 2, 10, 20],  # outside
            [0, 7, 90, 70, 30, 30],  # reaches out
            [0, 7, 90, 70, 30, 30],  # the same again
            [0, 3, 90, 70, 30, 30],  # another class
            [0, 3, 5, 5, 0.5, 0.5],  # small, but something
        ],
    )
    data = Coco("train", root=root)
    expected = [[90, 70, 100, 80], [90, 70, 100, 80], [5, 5, 5.5, 5.5]]
    assert data[0].target["boxes"].tolist() == expected
    assert data[0].target["labels"].tolist() == [1, 0, 0]
    assert data.notes == (
        "instances_train2017.json: 2 boxes have no area inside their image; left out",
        "instances_train2017.json: 1 boxes stand twice on one image; kept once",
    )


def test_wrong_records_are_told_all_at_once(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100)] * 2, [[0, 7, 1, 2, 10, 20]] * 6)

    def edit(content: dict[str, Any]) -> None:
        one, two, three, four, five, six = content["annotations"]
        one["image_id"] = 999
        two["category_id"] = 4
        three["bbox"] = [1, float("nan"), 3, 4]
        four["bbox"] = [1, 2, -3, 4]
        five["id"] = six["id"]
        content["images"][1]["id"] = content["images"][0]["id"]

    change(root, edit)
    with pytest.raises(DataError) as error:
        Coco("train", root=root)
    for line in (
        "instances_train2017.json: these records are wrong",
        "images: id stands twice: 1 (id 100)",
        "annotations: id stands twice: 1 (id 505)",
        "annotations: image_id is not among the images: 1 (id 500: 999)",
        "annotations: category_id is not among the categories: 1 (id 501: 4)",
        "annotations[2] (id 502): bbox [1, nan, 3, 4] is not finite",
        "annotations[3] (id 503): bbox [1, 2, -3, 4] has a negative side",
        "Correct or remove them.",
    ):
        assert line in str(error.value)


def test_long_lists_of_wrong_records_are_cut(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100)], [[0, 5, 1, 2, 10, 20 + n] for n in range(50)])
    with pytest.raises(DataError, match=r"categories: 50 \(id 500: 5; 501: 5; 502: 5; \.\.\.\)"):
        Coco("train", root=root)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["annotations"][0].pop("bbox"), r"annotations\[0\] .*four numbers, got nothing"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"four numbers, got \[1, 2, 3\]"),
        (lambda c: c["annotations"][0].update(bbox="1234"), "four numbers, got '1234'"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), "four numbers, got"),
        (lambda c: c["annotations"][0].update(iscrowd="0"), "iscrowd should be 0 or 1, got '0'"),
        (lambda c: c["annotations"][0].update(area=-5), "area should be a number of pixels, 0 or more, got -5"),
        (lambda c: c["annotations"][0].update(area=float("inf")), "area should be a number of pixels, .*got inf"),
        (lambda c: c["annotations"][0].update(id="1"), "id should be a whole number, got '1'"),
        (lambda c: c["images"][0].update(file_name=None), "file_name should be text, got None"),
        (lambda c: c["images"][0].update(height=2**40), "height should be a whole number of pixels, got 1099"),
        (lambda c: c["categories"][0].update(name=None), "name should be text, got None"),
        (lambda c: c.update(categories=[]), "categories is empty, so there is nothing to detect"),
        (lambda c: c["images"][0].update(height=8.5), r"images\[0\] .*height .* got 8\.5"),
        (lambda c: c["images"][0].update(width=0), r"height or width is not positive: 1 \(id 100\)"),
        (lambda c: c["images"][0].update(id=10**30), "id should be a whole number"),
        (lambda c: c.pop("categories"), "no list of records under categories"),
        (lambda c: c.update(images={"a": 1}), "no list of records under images"),
    ],
)  # fmt: skip
def test_records_of_the_wrong_form(write_coco: WriteCoco, edit: Callable[..., Any], message: str) -> None:
    root = write_coco([(80, 100)], [[0, 7, 1, 2, 10, 20]])
    change(root, edit)
    with pytest.raises(DataError, match=message):
        Coco("train", root=root)


def test_a_truncated_json(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100)], [[0, 7, 1, 2, 10, 20]])
    path = root / "annotations/instances_train2017.json"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    with pytest.raises(DataError, match=r"instances_train2017\.json: not a json file, perhaps truncated"):
        Coco("train", root=root)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"images": [' + "9" * 5000 + "]}"])
def test_a_json_that_python_refuses_to_read(write_coco: WriteCoco, text: str) -> None:
    root = write_coco([(80, 100)], [])
    (root / "annotations/instances_train2017.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"instances_train2017\.json: not a json file, perhaps truncated"):
        Coco("train", root=root)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "C:\\x.jpg", "..\\x.jpg", ""])
def test_file_names_cannot_lead_out_of_the_folder(write_coco: WriteCoco, name: str) -> None:
    root = write_coco([(80, 100)], [])
    change(root, lambda content: content["images"][0].update(file_name=name))
    with pytest.raises(DataError, match="1 file_name entries lead out of 'train2017'"):
        Coco("train", root=root)


def test_what_is_missing_is_named_with_the_command_that_fetches_it(write_coco: WriteCoco, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^root: no folder '.*nowhere'.*mtframe data download coco .*nowhere"):
        Coco("train", root=tmp_path / "nowhere")
    root = write_coco([(80, 100)], [])
    with pytest.raises(DataError, match=r"no file '.*instances_val2017\.json'"):
        Coco("val", root=root)
    (root / "train2017/000000000000.jpg").unlink()
    (root / "train2017").rmdir()
    with pytest.raises(DataError, match=r"no folder '.*train2017'"):
        Coco("train", root=root)
    with pytest.raises(RecipeError, match="no split 'tests'; it has train, val, test"):
        Coco("tests", root=root)


def test_other_file_names_with_the_split_in_them(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100)], [[0, 7, 1, 2, 10, 20]])
    (root / "annotations/instances_train2017.json").rename(root / "{x}-train.json")
    (root / "train2017").rename(root / "photos")
    assert len(Coco("train", root=root, annotations="{x}-{split}.json", images="photos")[0].target["boxes"]) == 1


def test_an_image_that_is_not_what_the_json_says_is_refused_alone(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100), (80, 100)], [[0, 7, 1, 2, 10, 20]])
    change(root, lambda content: content["images"][0].update(height=100, width=80))
    (root / "train2017/000000000001.jpg").unlink()
    data = Coco("train", root=root)
    with pytest.raises(BadImageError, match="is 100x80, but its annotations are for 80x100"):
        data[0]
    with pytest.raises(BadImageError, match=r"000000000001\.jpg: No such file"):
        data[1]


def test_decodes_large_photographs_smaller(write_coco: WriteCoco) -> None:
    root = write_coco([(480, 640)], [[0, 7, 64, 48, 100, 200]])
    data = Coco("train", root=root)
    data.decode_size = DecodeSize(shorter=200)
    sample = data[0]
    assert sample.image.shape == (3, 240, 320)
    assert sample.size == (480, 640)
    assert sample.target["boxes"].tolist() == [[64, 48, 164, 248]]


def test_is_picklable_and_small(write_coco: WriteCoco) -> None:
    root = write_coco([(80, 100)], [[0, 7, 1, 2, 10, 20 + n / 64] for n in range(2000)])
    data = Coco("train", root=root)
    stored = pickle.dumps(data)
    assert len(stored) < 2000 * 64
    assert pickle.loads(stored)[0].target["boxes"].shape == (2000, 4)  # noqa: S301


def test_reads_real_coco(shared_data: Path) -> None:
    train, val = (Coco(split, root=shared_data / "coco") for split in ("train", "val"))
    assert (len(train), len(val)) == (335, 103)
    assert train.notes == val.notes == ()
    assert len(train.info.classes) == 80
    assert train.info == val.info
    assert train.category_ids[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13)
    samples = [train.annotated(index) for index in range(len(train))]
    assert sum(len(sample.target["boxes"]) for sample in samples) == 2828
    assert sum(int(sample.target["crowd"].sum()) for sample in samples) == 18
    assert val[0].image.shape == (3, 426, 640)


def test_one_long_path_does_not_widen_all_others(write_coco: WriteCoco) -> None:
    root = write_coco([(8, 8)] * 200, [[0, 7, 0, 0, 4, 4]])
    change(root, lambda content: content["images"][0].update(file_name="x" * 20_000 + ".jpg"))
    data = Coco("train", root=root)
    assert len(data.ids()[0]) == len("train2017/.jpg") + 20_000
    # At the width of the longest it would be 16 MB.
    assert len(pickle.dumps(data)) < 500_000
