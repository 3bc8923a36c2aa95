"""Images and masks in two trees: the usual layouts, labels by path, and what is wrong with files."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtframe.errors import BadImageError, DataError, MtframeError, RecipeError
from mtframe.kinds import LabelsImages
from mtframe_segmentation.semantic_masks import SemanticMasks
from mtframe_segmentation.synthesis import CLASSES, render_scene

WriteMask = Callable[[Path, Sequence[Sequence[int]]], None]
WriteImage = Callable[..., None]

ROWS = [[0, 1, 2], [2, 255, 0]]
NAMES = ("sky", "road", "car")


@pytest.fixture
def root(tmp_path: Path, write_image: WriteImage, write_mask: WriteMask) -> Path:
    """Two images to train on, one of them in a folder of its own, and one to validate on."""
    for name in ("train/a", "train/town/b", "val/c"):
        write_image(tmp_path / "images" / f"{name}.jpg")
        write_mask(tmp_path / "masks" / f"{name}.png", ROWS)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n", encoding="utf-8")
    return tmp_path


def test_the_layout_that_is_made(root: Path) -> None:
    dataset = SemanticMasks("train", root=root)
    assert isinstance(dataset, LabelsImages)
    assert (dataset.info.target, dataset.info.classes, dataset.notes) == ("mask", NAMES, ())
    assert dataset.ids() == ["images/train/a.jpg", "images/train/town/b.jpg"]
    sample = pickle.loads(pickle.dumps(dataset))[1]  # noqa: S301
    assert (sample.id, sample.index, sample.size, tuple(sample.image.shape)) == (
        "images/train/town/b.jpg", 1, (2, 3), (3, 2, 3),
    )  # fmt: skip
    assert sample.target["mask"].dtype == torch.uint8
    assert sample.target["mask"].tolist() == ROWS
    assert len(SemanticMasks("val", root=root)) == 1
    with pytest.raises(IndexError):
        dataset[2]
    with pytest.raises(RecipeError, match="has no masks for 'test'"):
        SemanticMasks("test", root=root)


def test_another_tasks_images_are_labelled_by_path_and_masks_read_when_asked(root: Path) -> None:
    dataset = SemanticMasks("train", root=root)
    assert dataset.target_of("images/train/a.jpg", (2, 3))["mask"].tolist() == ROWS
    for other in ("images/val/c.jpg", "images/train/none.jpg", "../a.jpg"):
        assert dataset.target_of(other, (2, 3))["mask"].numel() == 0
    (root / "masks/train/a.png").unlink()
    assert dataset.ids()[0] == "images/train/a.jpg"
    with pytest.raises(DataError, match=r"masks/train/a\.png: No such file"):
        dataset.target_of("images/train/a.jpg", (2, 3))


def voc(root: Path, write_image: WriteImage, write_mask: WriteMask) -> dict[str, Any]:
    """One folder for all, lists of names, and a palette."""
    for name in ("2007_1", "2007_2", "2007_3"):
        write_image(root / f"JPEGImages/{name}.jpg")
    for name in ("2007_1", "2007_3"):
        write_mask(root / f"SegmentationClass/{name}.png", ROWS)
        path = root / f"SegmentationClass/{name}.png"
        picture = Image.open(path)
        picture.putpalette(list(range(255, -1, -1)) * 3)
        picture.save(path)
    (root / "sets").mkdir()
    (root / "sets/train.txt").write_text("2007_3\n", encoding="utf-8")
    (root / "sets/val.txt").write_text("2007_1\n\n", encoding="utf-8")
    return {
        "images": "JPEGImages", "masks": "SegmentationClass", "lists": "sets/{split}.txt", "classes": NAMES,
    }  # fmt: skip


def camvid(root: Path, write_image: WriteImage, write_mask: WriteMask) -> dict[str, Any]:
    """A folder a split right in the root."""
    for split in ("train", "val"):
        write_image(root / split / "0001TP.jpg")
        write_mask(root / f"{split}annot/0001TP.png", [[0, 1, 2], [2, 3, 0]])
    return {"images": "{split}", "masks": "{split}annot", "classes": NAMES, "unknown": (3,)}


def one_folder_of_masks(root: Path, write_image: WriteImage, write_mask: WriteMask) -> dict[str, Any]:
    """Images say which split they are of."""
    for split, name in (("train", "a"), ("val", "b")):
        write_image(root / f"images/{split}/{name}.jpg")
        write_mask(root / f"masks/{name}.png", ROWS)
    return {"masks": "masks", "classes": NAMES}


def cityscapes(root: Path, write_image: WriteImage, write_mask: WriteMask) -> dict[str, Any]:
    """Names that end differently, and several masks of one image."""
    for split in ("train", "val"):
        write_image(root / f"leftImg8bit/{split}/aachen/aachen_0_leftImg8bit.png")
        for kind in ("labelTrainIds", "instanceIds"):
            write_mask(root / f"gtFine/{split}/aachen/aachen_0_gtFine_{kind}.png", ROWS)
    return {
        "images": "leftImg8bit/{split}", "masks": "gtFine/{split}", "image_end": "_leftImg8bit.png",
        "mask_end": "_gtFine_labelTrainIds.png", "classes": NAMES,
    }  # fmt: skip


def ade20k(root: Path, write_image: WriteImage, write_mask: WriteMask) -> dict[str, Any]:
    """Splits of other names; 0 is unknown, classes begin at 1."""
    for split in ("training", "validation"):
        write_image(root / f"images/{split}/ADE_1.jpg")
        write_mask(root / f"annotations/{split}/ADE_1.png", [[1, 2, 3], [3, 0, 1]])
    return {
        "masks": "annotations/{split}", "split_names": {"train": "training", "val": "validation"},
        "classes": ("other", *NAMES), "unknown": (0,),
    }  # fmt: skip


def coco(root: Path, write_image: WriteImage, write_mask: WriteMask) -> dict[str, Any]:
    """Numbers with gaps, named in a yaml."""
    for split in ("train", "val"):
        write_image(root / f"{split}2017/000000000009.jpg")
        write_mask(root / f"semantic/{split}2017/000000000009.png", [[7, 90, 200], [200, 0, 7]])
    (root / "semantic/classes.yaml").write_text(
        "classes:\n  0: unlabeled\n  200: car\n  7: sky\n  90: road\n", encoding="utf-8"
    )
    return {
        "images": "{split}2017", "masks": "semantic/{split}2017", "classes": "semantic/classes.yaml", "unknown": (0,),
    }  # fmt: skip


@pytest.mark.parametrize(
    "layout", [voc, camvid, one_folder_of_masks, cityscapes, ade20k, coco], ids=lambda layout: layout.__name__
)
def test_usual_layouts(tmp_path: Path, write_image: WriteImage, write_mask: WriteMask, layout: Any) -> None:
    options = layout(tmp_path, write_image, write_mask)
    for split in ("train", "val"):
        dataset = SemanticMasks(split, root=tmp_path, **options)
        assert len(dataset) == 1
        assert dataset.info.classes == NAMES
        assert dataset[0].target["mask"].tolist() == ROWS
        assert dataset.target_of(dataset.ids()[0], (2, 3))["mask"].tolist() == ROWS


def test_numbers_of_one_name_are_one_class(root: Path) -> None:
    dataset = SemanticMasks("train", root=root, classes=("ground", "figure", "figure"))
    assert dataset.info.classes == ("ground", "figure")
    assert dataset[0].target["mask"].tolist() == [[0, 1, 1], [1, 255, 0]]


def test_a_part_validates_where_there_are_no_masks_for_it(tmp_path: Path, write_image: Any, write_mask: Any) -> None:
    for number in range(20):
        write_image(tmp_path / f"all/{number}.jpg")
        write_mask(tmp_path / f"masks/{number}.png", ROWS)

    def ids(split: str, **options: Any) -> set[str]:
        return set(SemanticMasks(split, root=tmp_path, images="all", masks="masks", classes=NAMES, **options).ids())

    train, val = ids("train"), ids("val")
    assert (len(train), len(val), train & val) == (16, 4, set())
    assert ids("val", val_part=0.5) > val
    (tmp_path / "all/20.jpg").write_bytes((tmp_path / "all/0.jpg").read_bytes())
    write_mask(tmp_path / "masks/20.png", ROWS)
    assert len(ids("val") & val) >= 3
    with pytest.raises(RecipeError, match="has no image for 'val' with val_part=0"):
        ids("val", val_part=0.0)


def test_images_without_masks_are_left_out_and_told(root: Path, write_image: WriteImage, write_mask: WriteMask) -> None:
    write_image(root / "images/train/bare.jpg")
    write_mask(root / "masks/train/stray.png", ROWS)
    dataset = SemanticMasks("train", root=root)
    assert len(dataset) == 2
    (note,) = dataset.notes
    assert note == f"train: 1 of 3 images have no mask in '{root}/masks/train'; left out, such as 'bare.jpg'"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, 2]], r"a\.png: is 3x1, but its image images/train/a\.jpg is 3x2"),
        (
            [[0, 1, 2], [7, 0, 3]],
            r"a\.png: has numbers that mean nothing: 3, 7, first in row 1, column 0\. Name them in",
        ),
    ],
)
def test_a_mask_that_does_not_fit_is_named(root: Path, write_mask: WriteMask, rows: Any, message: str) -> None:
    write_mask(root / "masks/train/a.png", rows)
    dataset = SemanticMasks("train", root=root)
    with pytest.raises(BadImageError, match=message):
        dataset[0]
    with pytest.raises(DataError, match=message):
        dataset.target_of("images/train/a.jpg", (2, 3))


def test_a_mask_in_colours_is_refused(root: Path, write_image: WriteImage) -> None:
    write_image(root / "masks/train/a.png")
    with pytest.raises(
        BadImageError, match=r"a\.png: is a picture in RGB; expected one integer a pixel, grey or with a palette"
    ):
        SemanticMasks("train", root=root)[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"root": "nowhere"}, RecipeError, r"root: no folder 'nowhere'.*synthesize semantic-masks nowhere"),
        ({"masks": "labels/{split}"}, RecipeError, r"masks: no folder '.*/labels/train'"),
        ({"images": "pictures"}, DataError, r"images: no folder '.*/pictures' beside the masks in '.*/masks/train'"),
        (
            {"mask_end": "_L.png"}, DataError,
            r"masks/train: none of the 2 images in '.*' has a mask here, such as 'a_L\.png'.*'image_end'",
        ),
        ({"image_end": ".tif"}, DataError, r"images/train: no image in this folder; their names end in \.tif"),
        ({"classes": "names.txt"}, RecipeError, r"classes: cannot read '.*/names\.txt' \(No such file"),
        ({"classes": ("sky",), "unknown": (0,)}, DataError, r"classes: expected 1 to 255 besides .*, got 0"),
        ({"unknown": (-1,)}, RecipeError, r"expected numbers of 0 to 65535, got -1"),
        ({"lists": "{split}.txt"}, RecipeError, r"lists: cannot read '.*/train\.txt'"),
        ({"split_names": {"valid": "val"}}, RecipeError, r"split_names: expected names of train, val, test, got"),
        ({"val_part": 1.0}, RecipeError, r"val_part: must be 0 or more and below 1, got 1"),
    ],
)  # fmt: skip
def test_wrong_options_are_told(root: Path, options: dict[str, Any], error: type[MtframeError], message: str) -> None:
    with pytest.raises(error, match=message):
        SemanticMasks("train", **{"root": root, **options})


def test_an_unknown_split_is_told(root: Path) -> None:
    with pytest.raises(RecipeError, match="split: semantic-masks has no 'dev'; it has train, val, test"):
        SemanticMasks("dev", root=root)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "sky\n\ncar", "expected a name for class 1, got ''"),
        ("c.yaml", "0: sky\n1: false\n", "expected a name for class 1, got False; quote it"),
        ("c.yaml", "sky: 0\n", "expected whole numbers before the names, got 'sky'"),
        ("c.yaml", "just text", "expected numbers with names, or a list of names"),
        ("c.yaml", "a: &x [sky]\nclasses: *x\n", "aliases are not supported"),
        ("c.yaml", "{", r"c\.yaml: while parsing"),
    ],
)
def test_wrong_class_files_are_told(root: Path, name: str, text: str, message: str) -> None:
    (root / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        SemanticMasks("train", root=root, classes=name)


@pytest.mark.parametrize("text", ["classes: [sky, road, car]", "names: {0: sky, 1: road, 2: car}", "[sky, road, car]"])
def test_class_files_in_yaml(root: Path, text: str) -> None:
    (root / "c.yaml").write_text(text, encoding="utf-8")
    assert SemanticMasks("train", root=root, classes="c.yaml").info.classes == NAMES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("missing.jpg", r"line 2: no image 'missing\.jpg' in '.*/images/train'"),
        ("../../etc/a.jpg", r"line 2: expected a path that stays in its folder, got '\.\./\.\./etc/a\.jpg'"),
        ("C:\\a.jpg", r"line 2: expected a path that stays in its folder"),
    ],
)
def test_lists_name_images_in_the_folder(root: Path, line: str, message: str) -> None:
    (root / "train.txt").write_text(f"a.jpg\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        SemanticMasks("train", root=root, lists="{split}.txt", val_part=0.5)


def test_a_bad_line_of_a_list_costs_that_line(root: Path) -> None:
    (root / "train.txt").write_text("a.jpg\nmissing.jpg\na.jpg\n", encoding="utf-8")
    data = SemanticMasks("train", root=root, lists="{split}.txt", val_part=0)
    assert data.omitted["lines of the list that are wrong"] == 1
    assert "1 of 3 lines are left out, since they are wrong: line 2: no image 'missing.jpg'" in data.notes[0]
    with pytest.raises(DataError, match="1 of 3 lines would have to be left out"):
        SemanticMasks("train", root=root, lists="{split}.txt", val_part=0, bad_labels=0)


def test_two_images_of_one_mask_are_told(root: Path, write_image: WriteImage) -> None:
    write_image(root / "images/train/a.png")
    with pytest.raises(DataError, match=r"'a\.jpg' and 'a\.png' would have one mask"):
        SemanticMasks("train", root=root)


def test_made_scenes_are_the_same_from_the_same_seed_and_their_masks_exact(tmp_path: Path, scenes: Path) -> None:
    counts = SemanticMasks.synthesize(tmp_path / "again", train=3, val=1, size=64, workers=1)
    assert counts == {"train": 3, "val": 1, "classes": 5}
    for file in ("images/train/000002.jpg", "masks/train/000002.png", "masks/val/000000.png", "classes.txt"):
        assert (tmp_path / "again" / file).read_bytes() == (scenes / file).read_bytes()
    dataset = SemanticMasks("train", root=scenes)
    assert dataset.info.classes == CLASSES
    image, mask = render_scene(64, np.random.default_rng([0, 0, 2]))
    assert np.array_equal(dataset[2].target["mask"].numpy(), mask)
    # But for JPEG's losses.
    assert np.abs(dataset[2].image.numpy() / 255 - image.clip(0, 1)).mean() < 0.05
    seen = {int(number) for place in range(40) for number in dataset[place].target["mask"].unique()}
    assert seen == set(range(5))
    with pytest.raises(RecipeError, match="size=16: expected at least 32"):
        SemanticMasks.synthesize(tmp_path / "small", size=16)
