"""Reads and checks a COCO instances json."""

# Shapes: I images, A annotations.

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mtframe.errors import DataError
from mtframe.omissions import BAD_LABELS, NAMED, WRONG_LABELS, Mistakes, few_enough
from mtframe.paths import regular, stays_inside

from .annotations import Annotations, collect

# Areas are kept as float32.
_LARGEST = float(np.finfo(np.float32).max)

# What stands for a field that may be missing.
_OPTIONAL = {"area": None, "iscrowd": 0}


def read_coco(
    path: Path, split: str, folder: str, bad_labels: float = BAD_LABELS, learned: Path | None = None
) -> tuple[Annotations, dict[int, str]]:
    """Reads an instances json.

    Args:
        path: The json.
        split: Data set and split, for messages.
        folder: That of the images, relative to the root, put in front of their names.
        bad_labels: Part of the images that may be left out, since a record of theirs is wrong.
        learned: The json of the training split, where that is another: what it has boxes of is a class here, too.

    Returns:
        The annotations, labelled in the order of category ids, and the categories' names by id in that order.

    Raises:
        DataError: With everything that is wrong with it.
    """
    content = _load(path)
    notes = _drop_parent(content, split, learned)
    images = _columns(path, "images", content, id=_whole, file_name=_text, height=_side, width=_side)
    categories = _columns(path, "categories", content, id=_whole, name=_text)
    raw, wrong = _annotations(path, content)
    records = content["annotations"]
    boxes = np.array(raw["bbox"], dtype=np.float64).reshape(-1, 4)
    area = np.array(raw["area"], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        # What is beyond a float ends at the image's border, as all that is beyond the image.
        ends = boxes[:, :2] + boxes[:, 2:]
        area = np.where(np.isnan(area), (boxes[:, 2] * boxes[:, 3]).clip(max=_LARGEST), area)
    crowd = np.array(raw["iscrowd"], dtype=bool)

    category_ids = np.sort(np.array(categories["id"], dtype=np.int64))
    names = dict(zip(categories["id"], categories["name"], strict=True))
    image_ids, ids = np.array(images["id"], dtype=np.int64), np.array(raw["id"], dtype=np.int64)
    owner, stray = _positions(np.array(raw["image_id"], dtype=np.int64), image_ids)
    labels, unknown = _positions(np.array(raw["category_id"], dtype=np.int64), category_ids)
    sizes = np.array([images["height"], images["width"]], dtype=np.int64).T.reshape(-1, 2)
    left_out = {place: wrong[number] for place, number in enumerate(images["id"]) if number in wrong}
    few = len(left_out) == len(wrong) and few_enough(len(left_out), len(image_ids), bad_labels)
    _check(
        path,
        [] if few else [text for its in wrong.values() for text in its],
        {
            "images: id stands twice": _repeated(images["id"]),
            "images: file_name stands twice": _repeated(images["file_name"]),
            "images: height or width is not positive": image_ids[(sizes < 1).any(axis=1)].tolist(),
            "categories: id stands twice": _repeated(categories["id"]),
            "categories: name stands twice": _repeated(categories["name"]),
            "annotations: id stands twice": _repeated(raw["id"]),
            "annotations: image_id is not among the images": _named(records, "image_id", stray),
            "annotations: category_id is not among the categories": _named(records, "category_id", unknown),
        },
    )
    if bad := [name for name in images["file_name"] if not stays_inside(name)]:
        raise DataError(
            f"{path}: {len(bad)} file_name entries lead out of {folder!r}, e.g. {bad[0]!r}. "
            "They must be relative, without '..'."
        )
    mistakes = Mistakes()
    for place, its in left_out.items():
        for one in its:
            mistakes.add(place, one)
    notes += mistakes.excused(len(image_ids), bad_labels, str(path), "images")
    annotations = collect(
        split,
        path.name,
        [f"{folder}/{name}" for name in images["file_name"]],
        owner,
        np.concatenate([boxes[:, :2], ends], axis=1),
        labels,
        crowd,
        sizes=sizes,
        area=area,
        annotation_ids=ids,
        image_ids=image_ids,
        meant="corner and size",
    )
    annotations = annotations.without(left_out).noting(*notes).omitting({WRONG_LABELS: len(left_out)})
    return annotations, {number: names[number] for number in category_ids.tolist()}


def _drop_parent(content: dict[str, Any], split: str, learned: Path | None) -> tuple[str, ...]:
    """Takes out the category that Roboflow puts above all others, if nothing is labelled with it; says so."""
    parent = _parent(content)
    if parent is None or (learned is not None and _parent(_load(learned)) != parent):
        return ()
    content["categories"] = [record for record in content["categories"] if record.get("id") != parent]
    return (f"{split}: category {parent} is the parent of all others, and nothing is labelled with it; left out",)


def _parent(content: dict[str, Any]) -> int | None:
    """The id of a category without boxes of which all others are kinds; None if there is none."""
    records = content["categories"]
    for record in records:
        others = [other.get("supercategory") for other in records if other is not record]
        own, number = record.get("name"), record.get("id")
        if others and isinstance(own, str) and isinstance(number, int) and record.get("supercategory") != own:
            used = any(annotation.get("category_id") == number for annotation in content["annotations"])
            if not used and all(other == own for other in others):
                return number
    return None


def _annotations(path: Path, content: dict[str, Any]) -> tuple[dict[str, list[Any]], dict[int, list[str]]]:
    """One list a field of the annotations; those with a wrong field are taken out, and told by the image they are of.

    Raises:
        DataError: One does not say of which image it is.
    """
    columns: dict[str, list[Any]] = {field: [] for field in _FIELDS}
    wrong: dict[int, list[str]] = {}
    kept = []
    for place, record in enumerate(content["annotations"]):
        try:
            values = [_converted(path, "annotations", place, record, *field) for field in _FIELDS.items()]
        except DataError as error:
            number = _converted(path, "annotations", place, record, "image_id", _whole)
            wrong.setdefault(number, []).append(str(error).removeprefix(f"{path}: "))
            continue
        if why := _wrong_box(record["bbox"]):
            told = f"annotations[{place}] (id {record['id']}): bbox {record['bbox']} {why}"
            wrong.setdefault(values[1], []).append(told)
            continue
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        kept.append(record)
    content["annotations"] = kept
    return columns, wrong


def _wrong_box(box: list[float]) -> str | None:
    if not all(map(math.isfinite, box)):
        return "is not finite"
    return "has a negative side" if box[2] < 0 or box[3] < 0 else None


def _load(path: Path) -> dict[str, Any]:
    try:
        with regular(path).open(encoding="utf-8-sig") as file:
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
            columns[field].append(_converted(path, kind, place, record, field, convert))
    return columns


def _converted(
    path: Path, kind: str, place: int, record: dict[str, Any], field: str, convert: Callable[[Any], Any]
) -> Any:
    """A record's field. Raises DataError if it is not there, or of the wrong type."""
    try:
        return convert(record[field] if field in record else _OPTIONAL[field])
    except (KeyError, TypeError, ValueError, OverflowError):
        found = repr(record[field])[:80] if field in record else "nothing"
        raise DataError(
            f"{path}: {kind}[{place}] (id {record.get('id')}): {field} should be {_EXPECTED[convert]}, got {found}"
        ) from None


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
    # JSON can spell half a pair of surrogates, which no file's name, no terminal and no other file can hold.
    value.encode()
    return value


def _box(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 4:
        raise TypeError
    return tuple(map(_number, value))


def _area(value: Any) -> float:
    """NaN where there is none."""
    if value is not None and not 0 <= _number(value) <= _LARGEST:
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


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "id": _whole,
    "image_id": _whole,
    "category_id": _whole,
    "bbox": _box,
    "area": _area,
    "iscrowd": _flag,
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


def _check(path: Path, wrong: list[str], problems: dict[str, list[Any]]) -> None:
    """Raises one DataError that tells of all problems, each with its offenders' ids, and of what else is wrong."""
    lines = []
    for problem, offenders in problems.items():
        if offenders:
            first = "; ".join(str(offender) for offender in offenders[:NAMED])
            more = "; ..." if len(offenders) > NAMED else ""
            lines.append(f"  {problem}: {len(offenders)} (id {first}{more})")
    lines += [f"  {text}" for text in wrong[:NAMED]]
    if len(wrong) > NAMED:
        lines.append(f"  ... and {len(wrong) - NAMED} more annotations")
    if lines:
        text = "\n".join(lines)
        raise DataError(f"{path}: these records are wrong\n{text}\nCorrect or remove them.")
