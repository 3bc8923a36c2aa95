"""Data of boxes that is well-formed and cannot be meant, or is odd: one small data set for each finding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command import Result, mtframe
from mtframe.data import DataInfo
from mtframe.kinds import FeatureSpec
from mtframe_detection.boxes import Boxes
from mtframe_detection.coco import Coco
from mtframe_detection.dense import DenseHead
from mtframe_detection.letterbox import Letterbox
from mtframe_detection.rfcn import RFCNHead
from mtframe_detection.voc import Voc
from mtframe_detection.yolo import Yolo

Write = Callable[..., Path]

# Of an image of 100 x 80, by centre and size, far from its borders.
BOXES = [(30, 30, 20, 10), (50, 40, 30, 30), (70, 50, 20, 40), (60, 30, 40, 20), (80, 60, 20, 20), (25, 60, 30, 12)]


def numbered(text: str, name: str) -> list[int]:
    """The numbers in the table's row of that name."""
    (line,) = (line for line in text.splitlines() if line.strip().startswith(name))
    return [int(cell) for cell in line.strip().removeprefix(name).split()]


def finding(result: Result, name: str) -> str:
    (line,) = (line for line in (result.out + result.err).splitlines() if line.endswith(f"[{name}]"))
    return line


def found(result: Result) -> set[str]:
    return {line.rpartition("[")[2][:-1] for line in (result.out + result.err).splitlines() if line.endswith("]")}


def as_read(meaning: str) -> list[tuple[float, ...]]:
    """The boxes as somebody writes them who takes the four numbers for something else."""
    return [
        {
            "corners": (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
            "widths": (x - w / 2, y - h / 2, w, h),
            "centres": (x, y, w, h),
        }[meaning]
        for x, y, w, h in BOXES
    ]


def with_val(root: Path) -> Path:
    """The data set with a split for validation, where it is the training's that is looked at."""
    folder = root / "val2017"
    folder.mkdir()
    Image.new("RGB", (50, 50)).save(folder / "v.jpg")
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    content["images"] = [{"id": 1, "file_name": "v.jpg", "height": 50, "width": 50}]
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 30, 30], "iscrowd": 0}]
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def write_yolo(root: Path, lines: dict[str, list[str]], *, split: str = "train") -> Path:
    """Images of 100 x 80 with these lines of labels, and classes `cat` and `dog`."""
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number, (name, boxes) in enumerate(lines.items()):
        Image.new("RGB", (100, 80), (number, len(split), 7)).save(images / f"{name}.png")
        if boxes:
            (labels / f"{name}.txt").write_text("\n".join(boxes), encoding="utf-8")
    (root / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("meaning", ["corners", "centres"])
def test_coco_s_boxes_of_another_meaning(write_coco: Write, meaning: str) -> None:
    wrong = [[0, 3, *box] for box in as_read(meaning)]
    root = with_val(write_coco([(80, 100)], wrong))
    checked = mtframe("data", "check", "coco", root)
    assert checked.code == 1
    # By hand, a hundredth of a side beyond the image is none: the corners of the last four, the third one's centre.
    out = {"corners": 4, "centres": 1}[meaning]
    wanted = f"{out} of 6 boxes reach out of their image, and none would if the four numbers were"
    assert wanted in finding(checked, f"boxes-like-{meaning}")
    allowed = mtframe("data", "check", "coco", root, "--allow", f"boxes-like-{meaning}")
    assert allowed.code == 0
    assert "error (allowed): " in allowed.out


@pytest.mark.parametrize("meaning", ["corners", "widths"])
def test_yolo_s_boxes_of_another_meaning(tmp_path: Path, meaning: str) -> None:
    lines = [f"0 {a / 100} {b / 80} {c / 100} {d / 80}" for a, b, c, d in as_read(meaning)]
    root = write_yolo(tmp_path / "data", {"a": lines[:3], "b": lines[3:]})
    checked = mtframe("data", "check", "yolo", root)
    assert (checked.code, found(checked) - {"class-without-any"}) == (1, {f"boxes-like-{meaning}"})


def test_right_boxes_are_not_suspected(write_coco: Write, tmp_path: Path) -> None:
    root = write_coco(
        [(80, 100)], [[0, category, *box] for category, box in zip([3, 7, 90] * 2, as_read("widths"), strict=True)]
    )
    assert Coco("train", root=root).inspect() == []
    lines = [f"{number % 2} {x / 100} {y / 80} {w / 100} {h / 80}" for number, (x, y, w, h) in enumerate(BOXES)]
    assert Yolo("train", root=write_yolo(tmp_path / "data", {"a": lines})).inspect() == []


def test_parts_of_the_sides_where_pixels_are_meant(write_coco: Write) -> None:
    root = write_coco([(80, 100)], [[0, 3, a / 100, b / 80, c / 100, d / 80] for a, b, c, d in as_read("widths")])
    checked = mtframe("data", "check", "coco", root)
    assert checked.code == 1
    assert "6 of 6 boxes look like parts of the image's sides, not pixels" in finding(checked, "boxes-like-fractions")
    # All are smaller than 2 pixels then, which alone would stop it.
    assert {"boxes-like-fractions", "boxes-too-small"} <= found(checked)


def test_some_boxes_that_reach_out(write_coco: Write) -> None:
    inside = [[0, 3, *box] for box in as_read("widths")]
    root = with_val(write_coco([(80, 100)], [*inside, [0, 7, 90, 10, 30, 10], [0, 7, 120, 10, 30, 10]]))
    checked = mtframe("data", "check", "coco", root)
    assert checked.code == 0
    assert "warning: coco, train: 1 of 8 boxes reach out" in finding(checked, "boxes-reach-out")
    # The second one is outside.
    assert numbered(checked.out, "left out: boxes without area inside their image") == [1, 0]
    assert numbered(checked.out, "boxes") == [7, 1]


def test_boxes_by_class_and_split_with_what_is_left_out(write_coco: Write) -> None:
    same = [0, 3, 10, 10, 20, 20]
    write_coco([(80, 100), (80, 100), (80, 100)], [same, same, [0, 7, 30, 30, 20, 20], [1, 3, 5, 5, 30, 30]])
    root = write_coco([(60, 90)], [[0, 90, 5, 5, 20, 20]], split="val")
    checked = mtframe("data", "check", "coco", root)
    assert checked.code == 0
    wanted = {"images": [3, 1], "with nothing on them": [1, 0], "boxes": [3, 1], "cat": [2, 0], "dog": [1, 0],
              "bird": [0, 1], "left out: boxes that stand twice on one image": [1, 0]}  # fmt: skip
    assert {name: numbered(checked.out.partition("pixels")[2], name) for name in wanted} == wanted
    assert "1 of 3 classes have no boxes to learn from (e.g. bird)" in finding(checked, "class-without-any")
    assert "1 classes are scored on val and have nothing to learn from in train (e.g. bird)" in finding(
        checked, "class-not-trained"
    )


def test_regions_to_ignore(write_coco: Write) -> None:
    root = with_val(write_coco([(80, 100)], [[0, 3, 10, 10, 20, 20], [0, 3, 40, 10, 20, 20]]))
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["annotations"][1]["iscrowd"] = 1
    file.write_text(json.dumps(content), encoding="utf-8")
    checked = mtframe("data", "check", "coco", root)
    assert (numbered(checked.out, "boxes"), numbered(checked.out, "regions to ignore")) == ([1, 1], [1, 0])


def test_no_box_at_all(write_coco: Write) -> None:
    checked = mtframe("data", "check", "coco", write_coco([(80, 100), (80, 100)], []))
    assert checked.code == 1
    assert "there are no boxes on its 2 images" in finding(checked, "nothing-labelled")


def test_most_images_without_boxes(write_coco: Write) -> None:
    root = with_val(write_coco([(80, 100)] * 3, [[0, category, 10, 10, 20, 20] for category in (3, 7, 90)]))
    checked = mtframe("data", "check", "coco", root)
    assert (checked.code, found(checked)) == (0, {"mostly-empty"})
    assert "warning: coco, train: 2 of 3 images have no boxes on them" in finding(checked, "mostly-empty")


def test_boxes_that_become_too_small_at_the_task_s_size(write_coco: Write) -> None:
    # At 320 pixels an image of 1,000 x 500 shrinks to 0.32: 6 pixels become 1.92, 7 become 2.24.
    root = with_val(
        write_coco([(500, 1000)], [[0, 3, 10, 10, 6, 100], [0, 7, 200, 10, 7, 100], [0, 90, 500, 100, 100, 100]])
    )
    checked = mtframe("data", "check", "coco", root)
    assert "warning: coco, train: 1 of 3 boxes become smaller than 2 pixels" in finding(checked, "boxes-too-small")
    assert numbered(checked.out, "smaller than 2 pixels at this size") == [1, 0]


def test_a_data_set_that_no_preset_names_is_judged_at_the_size_of_its_kind(tmp_path: Path, here: Path) -> None:
    # Images of 100 x 80. At 320 pixels a box of a hundredth by a tenth has 3.2 by 25.6, at 160 pixels 1.6 by 12.8.
    root = write_yolo(tmp_path / "data", {"a": ["0 0.5 0.5 0.01 0.1", "1 0.5 0.5 0.4 0.4"]})
    checked = mtframe("data", "check", "yolo", root)
    assert checked.out.startswith("yolo: boxes, 320 pixels (object-detection) ")
    assert "boxes-too-small" not in found(checked)
    smaller = mtframe("data", "check", "yolo", root, "--size", "160")
    assert smaller.out.startswith("yolo: boxes, 160 pixels (object-detection) ")
    assert numbered(smaller.out, "smaller than 2 pixels at this size") == [1]
    assert "1 of 2 boxes become smaller than 2 pixels" in finding(smaller, "boxes-too-small")
    tiny = mtframe("data", "check", "yolo", root, "-t", "tutorial-objects", "--size", "160")
    assert tiny.out.startswith("yolo: boxes")
    refused = mtframe("data", "check", "yolo", root, "-t", "face-recognition")
    assert (refused.code, refused.out) == (2, "")
    assert (
        "-t face-recognition: works on targets of kind 'identity', but the data set 'yolo' gives 'boxes'" in refused.err
    )
    assert mtframe("data", "check", "yolo", root, "-t", "object-detectoin").code == 2
    Path("recipe.yaml").write_text("backbone: timm/test_resnet\n", encoding="utf-8")
    assert "-t and --size: a recipe says them itself" in mtframe("data", "check", "recipe.yaml", "--size", "9").err
    # What is looked at finds its preset likewise.
    assert mtframe("data", "preview", "yolo", root, "size=64", "--images", "1").code == 0


def test_a_recipe_s_own_size_and_head(write_coco: Write, here: Path) -> None:
    # At 64 pixels 0.64: both small boxes have their centre in the first cell of stride 8, whose point one learns.
    small = [[0, 3, 2, 2, 4, 4], [0, 7, 3, 3, 4, 4]]
    root = write_coco([(100, 100)], [*small, [0, 90, 40, 40, 50, 50]])
    shutil.copytree(root / "train2017", root / "val2017")
    annotations = root / "annotations"
    shutil.copy(annotations / "instances_train2017.json", annotations / "instances_val2017.json")
    made = mtframe("init", f"objects=object-detection:{root}", "-b", "timm/test_resnet.r160_in1k",
                   "backbone.pretrained=false", "tasks.objects.size=64")  # fmt: skip
    Path("recipe.yaml").write_text(made.out, encoding="utf-8")
    checked = mtframe("data", "check", "recipe.yaml", "--allow", "same-file")
    assert checked.code == 0, checked
    assert numbered(checked.out, "learned by no output of the head") == [1, 1]
    assert "1 of 3 boxes are learned by no output" in finding_of_split(checked, "unlearnable", "train")
    assert "(allowed): objects: 1 of the 1 images of val are in train too" in finding(checked, "same-file")
    # A recipe says so itself, too.
    again = mtframe("data", "check", "recipe.yaml", "train.allow=[same-file]")
    assert again.code == 0
    refused = mtframe("train", "recipe.yaml", "train.steps=1", "train.workers=0")
    assert refused.code == 1
    assert "the data cannot be meant as it is:\n  objects: 1 of the 1 images of val are in train" in refused.err
    assert "If it is: train.allow=[same-file]" in refused.err
    assert sorted(path.name for path in here.iterdir()) == ["recipe.yaml"]


def finding_of_split(result: Result, name: str, split: str) -> str:
    (line,) = (line for line in result.out.splitlines() if line.endswith(f"[{name}]") and f", {split}: " in line)
    return line


@pytest.mark.parametrize("head", [DenseHead, RFCNHead])
def test_a_head_knows_which_boxes_no_point_learns(head: type[DenseHead] | type[RFCNHead]) -> None:
    features = (FeatureSpec("c3", 8, 8), FeatureSpec("c4", 8, 16))
    built = head(features, DataInfo("boxes", ("thing",)), width=8, strides=(8, 16))
    boxes = torch.tensor([
        # One cell of stride 8 holds both centres; no point lies in either.
        [[9.0, 9.0, 11.0, 11.0], [9.0, 9.0, 11.0, 11.0], [30.0, 30.0, 60.0, 60.0]],
        # A cell of its own each; the last one is padding.
        [[9.0, 9.0, 11.0, 11.0], [25.0, 9.0, 27.0, 11.0], [0.0, 0.0, 0.0, 0.0]],
    ])  # fmt: skip
    targets = {"boxes": boxes, "valid": torch.tensor([[True, True, True], [True, True, False]])}
    assert built.unlearnable(targets, (64, 64)).tolist() == [1, 0]


def test_letterbox_places_as_it_draws() -> None:
    from mtframe.data import Sample

    box = Letterbox(96, False)
    for size in ((480, 640), (96, 96), (31, 200), (200, 31)):
        sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), {}, size)
        ((drawn,),) = box([sample], np.random.default_rng(0)).placements
        placed = box.placement_of(size)
        assert (placed.matrix, placed.input_size) == (drawn.matrix, drawn.input_size)


def test_sizes_and_places_are_counted() -> None:
    boxes = Boxes(DataInfo("boxes", ("cat", "dog")))
    from mtframe.data import Sample

    target = {
        "boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0], [80.0, 0.0, 160.0, 80.0]], dtype=torch.float64),
        "labels": torch.tensor([0, 1]),
        "crowd": torch.tensor([False, False]),
    }
    samples = [
        Sample(torch.empty(0), target, (160, 160)),
        Sample(torch.empty(0), boxes.unknown(), (160, 160)),
        Sample(torch.empty(0), {name: tensor[:0] for name, tensor in target.items()}, (160, 160)),
    ]
    said = boxes.survey([boxes.condensed(sample) for sample in samples], np.array([0.5, 0.5, np.nan]))
    assert (said.total, said.empty, said.unknown, dict(said.classes)) == (2, 1, 1, {"cat": 1, "dog": 1})
    _, sizes, places = said.pictures
    # Halved, 4 and 40 pixels.
    assert {name: number for name, number in sizes.values.items() if number} == {"4 to 8": 1, "32 to 64": 1}
    cover = np.array(places.values)
    # 16 x 16 cells of 10 pixels: the first is in one, the second in 8 x 8.
    assert (cover.sum(), cover[0, 0], cover[0:8, 8:16].sum()) == (65, 1, 64)


LINE = "0 0.5 0.5 0.4 0.4"


def test_labels_beside_an_image_s_whole_name(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"a": [LINE], "b": [LINE], "c": [LINE]})
    for file in sorted((root / "labels" / "train").iterdir()):
        file.rename(file.with_name(f"{file.stem}.png.txt"))
    checked = mtframe("data", "check", "yolo", root)
    assert checked.code == 1
    said = finding(checked, "labels-elsewhere")
    assert "the labels of 3 of 3 images seem to lie elsewhere" in said
    assert "images/train/a.png: expected labels/train/a.txt, found labels/train/a.png.txt" in said
    assert "label-without-image" not in found(checked)


def test_labels_in_the_other_split_s_folder(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"a": [LINE], "b": [LINE]})
    write_yolo(root, {"c": [LINE]}, split="val")
    (root / "labels" / "train").rename(root / "labels" / "other")
    (root / "labels" / "val").rename(root / "labels" / "train")
    (root / "labels" / "other").rename(root / "labels" / "val")
    checked = mtframe("data", "check", "yolo", root)
    assert checked.code == 1
    assert "the labels of 2 of 2 images seem to lie elsewhere" in finding_in(checked, "labels-elsewhere", "train")
    assert "the labels of 1 of 1 images seem to lie elsewhere" in finding_in(checked, "labels-elsewhere", "val")


def finding_in(result: Result, name: str, split: str) -> str:
    lines = (result.out + result.err).splitlines()
    (line,) = (line for line in lines if line.endswith(f"[{name}]") and f", {split}: " in line)
    return line


def test_labels_in_a_folder_of_another_case(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"a": [LINE], "b": [LINE]})
    # The empty folder is there as well: a reader that finds it looks no further.
    (root / "labels").rename(root / "Labels")
    (root / "labels" / "train").mkdir(parents=True)
    checked = mtframe("data", "check", "yolo", root)
    assert checked.code == 1
    assert "found Labels/train/a.txt" in finding(checked, "labels-elsewhere")


def test_no_folder_of_labels_but_one_of_another_case(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"a": [LINE]})
    (root / "labels").rename(root / "Labels")
    checked = mtframe("data", "check", "yolo", root)
    assert checked.code == 1
    assert "no folder of labels; expected" in checked.err
    assert "e.g. images/train/a.png: expected labels/train/a.txt, found Labels/train/a.txt" in checked.err


def test_label_files_without_an_image(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "data", {"a": [LINE, "1 0.3 0.3 0.2 0.2"]})
    (root / "labels" / "train" / "gone.txt").write_text(LINE, encoding="utf-8")
    # Neither what is no label nor what another split has is one.
    (root / "README.txt").write_text("2 classes, see classes.txt", encoding="utf-8")
    write_yolo(root, {"v": [LINE]}, split="val")
    checked = mtframe("data", "check", "yolo", root)
    assert checked.code == 0
    said = finding_in(checked, "label-without-image", "train")
    assert "1 files of labels have no image (e.g. labels/train/gone.txt)" in said


def test_annotated_images_that_are_not_there(write_coco: Write) -> None:
    root = with_val(write_coco([(80, 100)] * 4, [[n, (3, 7, 90)[n % 3], 10, 10, 20, 20] for n in range(4)]))
    files = sorted((root / "train2017").iterdir())
    files[0].unlink()
    checked = mtframe("data", "check", "coco", root)
    assert (checked.code, found(checked)) == (0, {"missing-images"})
    assert "warning: coco, train: 1 of 4 labelled images are not there" in finding(checked, "missing-images")
    assert numbered(checked.out, "that are not there") == [1, 0]
    assert numbered(checked.out, "that cannot be read") == [0, 0]
    for file in files[1:3]:
        file.unlink()
    again = mtframe("data", "check", "coco", root)
    assert (again.code, finding(again, "missing-images").partition(":")[0]) == (1, "error")


def test_voc_s_corners_are_corners(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (100, 80)).save(root / "JPEGImages" / "a.jpg")
    things = "".join(
        f"<object><name>cat</name><bndbox><xmin>{a + 1}</xmin><ymin>{b + 1}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>"
        for a, b, c, d in as_read("corners")
    )
    size = "<size><width>100</width><height>80</height></size>"
    (root / "Annotations" / "a.xml").write_text(f"<annotation>{size}{things}</annotation>", encoding="utf-8")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n", encoding="utf-8")
    assert Voc("train", root=root, classes=("cat",)).inspect() == []
