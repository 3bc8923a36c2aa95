"""Reads and checks a COCO instances json; keeps it as arrays."""

# Shapes: I images, A annotations in the order of their images.

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtframe.errors import DataError

# How many offenders a message names.
_NAMED = 3

# What stands for a field that may be missing.
_OPTIONAL = {"area": None, "iscrowd": 0}


@dataclass(frozen=True, slots=True)
class Annotations:
    """A json's content. Arrays rather than dicts: COCO's 860,000 boxes take 50 MB, and workers share them.

    Attributes:
        image_ids: (I,) int64.
        files: (I,) str, relative to the folder of images.
        sizes: (I, 2) int32, height and width.
        first: (I + 1,) int64; image i's annotations are `first[i]:first[i + 1]`.
        boxes: (A, 4) float64, XYXY, clipped to their image. In float32, boxes whose IoU is just a threshold
            could fall on its other side, and AP differ from COCO's.
        labels: (A,) int32, index into the categories.
        crowd: (A,) bool.
        area: (A,) float32, as annotated.
        annotation_ids: (A,) int64.
        category_ids, category_names: In the order of their ids.
        notes: What was left out.
    """

    image_ids: np.ndarray
    files: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    annotation_ids: np.ndarray
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)


def read_annotations(path: Path) -> Annotations:
    """Reads an instances json. Raises DataError with everything that is wrong with it."""
    content = _load(path)
    images = _columns(path, "images", content, id=_whole, file_name=_text, height=_side, width=_side)
    categories = _columns(path, "categories", content, id=_whole, name=_text)
    raw = _columns(path, "annotations", content, id=_whole, image_id=_whole, category_id=_whole, bbox=_box,
                   area=_area, iscrowd=_flag)  # fmt: skip
    records = content["annotations"]
    boxes = np.array(raw["bbox"], dtype=np.float64).reshape(-1, 4)
    area = np.array(raw["area"], dtype=np.float64)
    with np.errstate(over="ignore"):
        area = np.where(np.isnan(area), boxes[:, 2] * boxes[:, 3], area)
    crowd = np.array(raw["iscrowd"], dtype=bool)

    category_ids = np.sort(np.array(categories["id"], dtype=np.int64))
    names = dict(zip(categories["id"], categories["name"], strict=True))
    image_ids, ids = np.array(images["id"], dtype=np.int64), np.array(raw["id"], dtype=np.int64)
    owner, stray = _positions(np.array(raw["image_id"], dtype=np.int64), image_ids)
    labels, unknown = _positions(np.array(raw["category_id"], dtype=np.int64), category_ids)
    sizes = np.array([images["height"], images["width"]], dtype=np.int64).T.reshape(-1, 2)
    infinite, negative = ~np.isfinite(boxes).all(axis=1), (boxes[:, 2:] < 0).any(axis=1)
    _check(
        path,
        {
            "images: id stands twice": _repeated(images["id"]),
            "images: file_name stands twice": _repeated(images["file_name"]),
            "images: height or width is not positive": image_ids[(sizes < 1).any(axis=1)].tolist(),
            "categories: id stands twice": _repeated(categories["id"]),
            "categories: name stands twice": _repeated(categories["name"]),
            "annotations: id stands twice": _repeated(raw["id"]),
            "annotations: image_id is not among the images": _named(records, "image_id", stray),
            "annotations: category_id is not among the categories": _named(records, "category_id", unknown),
            "annotations: bbox is not finite": _named(records, "bbox", infinite),
            "annotations: bbox has a negative side": _named(records, "bbox", negative),
        },
    )
    limit = np.tile(sizes[owner][:, ::-1], 2)
    corners = np.minimum(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).clip(0), limit)
    keep, notes = _usable(path, corners, owner, labels, crowd)
    # Stable: annotations of an image stay in the order of the file.
    order = keep[np.argsort(owner[keep], kind="stable")]
    return Annotations(
        image_ids=image_ids,
        files=np.array(images["file_name"], dtype=np.str_),
        sizes=sizes.astype(np.int32),
        first=np.searchsorted(owner[order], np.arange(len(image_ids) + 1)),
        boxes=corners[order],
        labels=labels[order].astype(np.int32),
        crowd=crowd[order],
        area=area[order].astype(np.float32),
        annotation_ids=ids[order],
        category_ids=tuple(category_ids.tolist()),
        category_names=tuple(names[number] for number in category_ids.tolist()),
        notes=notes,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            # Outlines are most of the file: dropped as they are read, they never pile up in memory.
            content = json.load(file, object_hook=_without_outline)
    except (ValueError, RecursionError) as error:
        # Besides what is no json or no text: numbers of thousands of digits, thousands of brackets.
        raise DataError(f"{path}: not a json file, perhaps truncated ({error}). Fetch or write it again.") from None
    missing = [key for key in ("images", "annotations", "categories") if not _is_records(content, key)]
    if missing:
        raise DataError(f"{path}: expected a COCO instances json; it has no list of records under {', '.join(missing)}")
    if empty := [key for key in ("images", "categories") if not content[key]]:
        raise DataError(f"{path}: {' and '.join(empty)} is empty, so there is nothing to detect")
    return content


def _without_outline(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("segmentation", None)
    return record


def _is_records(content: Any, key: str) -> bool:
    records = content.get(key) if isinstance(content, dict) else None
    return isinstance(records, list) and all(isinstance(record, dict) for record in records)


def _columns(path: Path, kind: str, content: dict[str, Any], **fields: Callable[[Any], Any]) -> dict[str, list[Any]]:
    """One list a field. Raises DataError for the first record that lacks one or has it of the wrong type."""
    columns: dict[str, list[Any]] = {field: [] for field in fields}
    for place, record in enumerate(content[kind]):
        for field, convert in fields.items():
            try:
                columns[field].append(convert(record[field] if field in record else _OPTIONAL[field]))
            except (KeyError, TypeError, ValueError, OverflowError):
                found = repr(record[field])[:80] if field in record else "nothing"
                raise DataError(
                    f"{path}: {kind}[{place}] (id {record.get('id')}): {field} should be "
                    f"{_EXPECTED[convert]}, got {found}"
                ) from None
    return columns


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    if _number(value) != int(value) or abs(value) >= 2**63:
        raise ValueError
    return int(value)


def _side(value: Any) -> int:
    # What an int32 holds; whether it is positive is checked with all others.
    if abs(_whole(value)) >= 2**31:
        raise ValueError
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _box(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 4:
        raise TypeError
    return tuple(map(_number, value))


def _area(value: Any) -> float:
    """NaN where there is none."""
    if value is not None and not 0 <= _number(value) < float("inf"):
        raise ValueError
    return float("nan") if value is None else float(value)


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError
    return bool(value)


_EXPECTED: dict[Callable[[Any], Any], str] = {
    _whole: "a whole number",
    _side: "a whole number of pixels",
    _text: "text",
    _box: "four numbers",
    _area: "a number of pixels, 0 or more",
    _flag: "0 or 1",
}


def _positions(values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each value stands in `among`, and whether it is missing there."""
    if not len(among):
        return np.zeros(len(values), dtype=np.int64), np.ones(len(values), dtype=bool)
    order = np.argsort(among, kind="stable")
    places = order[np.searchsorted(among, values, sorter=order).clip(max=len(among) - 1)]
    return places, among[places] != values


def _repeated(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def _named(records: list[dict[str, Any]], field: str, wrong: Any) -> list[str]:
    return [f"{records[place]['id']}: {records[place][field]}" for place in np.flatnonzero(wrong)]


def _check(path: Path, problems: dict[str, list[Any]]) -> None:
    """Raises one DataError that tells of all problems, each with its offenders' ids."""
    lines = []
    for problem, offenders in problems.items():
        if offenders:
            first = "; ".join(str(offender) for offender in offenders[:_NAMED])
            more = "; ..." if len(offenders) > _NAMED else ""
            lines.append(f"  {problem}: {len(offenders)} (id {first}{more})")
    if lines:
        text = "\n".join(lines)
        raise DataError(f"{path}: these records are wrong\n{text}\nCorrect or remove them.")


def _usable(
    path: Path, boxes: np.ndarray, owner: np.ndarray, labels: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Indices of annotations to keep, and what to say of the others."""
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows = np.column_stack([owner, labels, crowd, boxes])
    first = np.zeros(len(rows), dtype=bool)
    first[np.unique(rows, axis=0, return_index=True)[1]] = True
    notes = []
    if not solid.all():
        notes.append(f"{path.name}: {(~solid).sum()} boxes have no area inside their image; left out")
    if not first[solid].all():
        # The official train2017 has a few of these.
        notes.append(f"{path.name}: {(~first[solid]).sum()} boxes stand twice on one image; kept once")
    return np.flatnonzero(solid & first), tuple(notes)
