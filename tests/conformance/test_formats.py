"""Data sets that cannot make data of their own are checked on data that is passed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from converted import write_voc, write_yolo
from mtframe.testing import Kit, Skip
from mtframe_detection.coco import Coco
from record_files import jpeg, write_training
from small import Small


def insightface(root: Path, small: Small) -> None:
    root.mkdir()
    write_training(root, [2, 3, 1], with_ranges=True)
    images, same = [jpeg(number) for number in range(20)], [True, False] * 5
    for name in ("lfw.bin", "agedb_30.bin"):
        (root / name).write_bytes(pickle.dumps((images, same)))


def voc(root: Path, small: Small) -> None:
    for split in Coco.splits[:2]:
        write_voc(Coco(split, root=small.objects), root)


def yolo(root: Path, small: Small) -> None:
    for split in Coco.splits[:2]:
        write_yolo(Coco(split, root=small.objects), root)


@pytest.mark.parametrize("make", [insightface, voc, yolo], ids=lambda make: make.__name__)
def test_data_in_its_format_keeps_the_contract(
    make: Callable[[Path, Small], None], tmp_path: Path, small: Small
) -> None:
    name = make.__name__
    make(tmp_path / name, small)
    # VOC's twenty are others.
    classes = {"classes": list(Coco("train", root=small.objects).info.classes)} if name == "voc" else {}
    kit = Kit("mtframe", {f"dataset:{name}": {"root": str(tmp_path / name), **classes}})
    skipped, passed = [], 0
    for case in kit.cases():
        if not case.id.startswith(f"dataset:{name}-") or case.check.name == "imports-silently":
            continue
        try:
            case.run()
        except Skip:
            skipped.append(case.check.name)
        else:
            passed += 1
    assert passed >= 12
    assert set(skipped) <= {"labels-by-id", "order", "omissions", "findings", "image-files"}


@pytest.mark.parametrize("name", ["lfw", "coco"])
def test_real_data_keeps_it_too(name: str, shared_data: Path) -> None:
    kit = Kit("mtframe", {f"dataset:{name}": {"root": str(shared_data / name)}})
    cases = [
        case for case in kit.cases() if case.id.startswith(f"dataset:{name}-") and not case.id.endswith("silently")
    ]
    skipped = set()
    for case in cases:
        try:
            case.run()
        except Skip:
            skipped.add(case.check.name)
    assert len(cases) >= 14
    # LFW inspects no files.
    assert skipped == {"order" if name == "coco" else "findings"}
