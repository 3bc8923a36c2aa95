"""Reads and checks an xml file of Pascal VOC."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from mtframe.errors import DataError

from ._reading import read_text


@dataclass(frozen=True, slots=True)
class Scene:
    """What an xml says of an image.

    Attributes:
        size: Height and width in pixels; None where the file does not say them.
        names: Class of each object.
        boxes: XYXY of each, from 0, without the last pixel; may reach out of the image.
        difficult: Whether it is marked so.
    """

    size: tuple[int, int] | None
    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    difficult: list[bool]


def read_scene(file: Path) -> Scene:
    """Reads an xml. Raises DataError, with the file, for the first thing that is wrong with it."""
    text = read_text(file)
    # Entities that stand for others can grow to gigabytes; they need a declaration, and VOC has none.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{file}: declares entities, which are not supported (<!DOCTYPE)")
    try:
        root = ElementTree.fromstring(text)
        scene = Scene(_size(root), [], [], [])
        for place, thing in enumerate(root.findall("object"), start=1):
            _add(scene, thing, place)
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: not an xml file, perhaps truncated ({error})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: {error}") from None
    return scene


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Height and width; None where they are left out or 0, as some tools write them."""
    texts = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    if set(texts) <= {"", "0"}:
        return None
    height, width = (_number(root, f"size/{side}") for side in ("height", "width"))
    if not all(1 <= side < 2**31 and side.is_integer() for side in (height, width)):
        raise ValueError(f"size: expected whole numbers of pixels, got {width:g}x{height:g}")
    return int(height), int(width)


def _add(scene: Scene, thing: ElementTree.Element, place: int) -> None:
    name = (thing.findtext("name") or "").strip()
    where = f"object {place} ({name})"
    if not name:
        raise ValueError(f"object {place}: has no name")
    try:
        # Only its own box: parts of it (heads, hands) have theirs.
        left, top, right, bottom = (_number(thing, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if right < left or bottom < top:
        raise ValueError(f"{where}: the box has a negative side: {left:g} {top:g} {right:g} {bottom:g}")
    difficult = (thing.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"{where}: difficult: expected 0 or 1, got {difficult[:40]!r}")
    scene.names.append(name)
    scene.boxes.append((left - 1, top - 1, right, bottom))
    scene.difficult.append(difficult == "1")


def _number(element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text or "nothing")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: expected a number, got {text[:40] if text else 'nothing'!r}") from None
    return value
