from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from command import mtframe
from converted import write_voc, write_yolo
from mtframe_detection.average_precision import CocoAP
from mtframe_detection.coco import Coco
from mtframe_detection.voc import Voc
from mtframe_detection.yolo import Yolo
from small import Small

FORMATS = pytest.mark.parametrize(
    ("name", "convert", "read"),
    [
        ("yolo", write_yolo, lambda split, root, classes: Yolo(split, root=root)),
        ("voc", write_voc, lambda split, root, classes: Voc(split, root=root, classes=classes)),
    ],
    ids=["yolo", "voc"],
)
Read = Callable[[str, Path, tuple[str, ...]], Any]


@FORMATS
def test_real_coco_is_the_same_in_other_formats(
    shared_data: Path, tmp_path: Path, name: str, convert: Callable[..., None], read: Read
) -> None:
    for split in ("train", "val"):
        data = Coco(split, root=shared_data / "coco")
        convert(data, tmp_path)
        same = read(split, tmp_path, data.info.classes)
        # The same classes in the same order, or the metric refuses them.
        CocoAP(same.info, data)
        places = {Path(str(file)).name: index for index, file in enumerate(data.annotations.files)}
        assert len(same) == len(data) == len(places)
        assert same.notes == ()
        for index in range(0, len(same), 5):
            here = same.annotated(index)
            there = data.annotated(places[Path(here.id).name])
            assert here.size == there.size
            assert torch.equal(here.target["labels"], there.target["labels"])
            torch.testing.assert_close(here.target["boxes"], there.target["boxes"], rtol=0, atol=1e-4)
            if name == "voc":
                assert torch.equal(here.target["crowd"], there.target["crowd"])
    assert same[0].image.shape[1:] == same[0].size


@FORMATS
def test_trains_and_is_checked_on_the_command_line(
    small: Small, here: Path, name: str, convert: Callable[..., None], read: Read
) -> None:
    for split in ("train", "val"):
        convert(Coco(split, root=small.objects), here / "data")
    options = ["classes=found"] if name == "voc" else []
    checked = mtframe("data", "check", name, "data", *options)
    assert (checked.code, checked.err) == (0, "")
    table = [line.split() for line in checked.out.splitlines()]
    assert table[0] == [f"{name}:", "boxes,", "320", "pixels", "(object-detection)", "train", "val"]
    assert table[1:3] == [["images", "4", "3"], ["that", "cannot", "be", "read", "0", "0"]]
    assert "test: not there" in checked.out
    parts = [part for part in small.parts[6:] if "faces" not in part]
    dataset = [f"tasks.objects.dataset.{option}" for option in (f"name={name}", *options)]
    trained = mtframe("train", "-b", small.parts[1], *parts, "-t", "objects=object-detection:data", *dataset)
    assert (trained.code, trained.err) == (0, ""), trained
