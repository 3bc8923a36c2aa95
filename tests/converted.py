"""Data sets of boxes written in the layouts of other formats; pictures are linked, not copied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_yolo(data: Any, root: Path) -> None:
    """One split of a data set as text files; the classes as `classes.txt`."""
    for index in range(len(data)):
        sample = data.annotated(index)
        height, width = sample.size
        lines = []
        for label, (left, top, right, bottom) in zip(
            sample.target["labels"].tolist(), sample.target["boxes"].tolist(), strict=True
        ):
            centre = (left + right) / 2 / width, (top + bottom) / 2 / height
            numbers = (*centre, (right - left) / width, (bottom - top) / height)
            lines.append(" ".join([str(label), *(f"{number:.8f}" for number in numbers)]))
        picture = root / "images" / data.split / Path(sample.id).name
        write(root / "labels" / data.split / f"{picture.stem}.txt", "\n".join(lines))
        link(data.root / sample.id, picture)
    write(root / "classes.txt", "\n".join(data.info.classes))


def write_voc(data: Any, root: Path) -> None:
    """One split of a data set as xml files and a list; crowds are difficult objects."""
    names = []
    for index in range(len(data)):
        sample = data.annotated(index)
        objects = [
            (data.info.classes[label], left + 1, top + 1, right, bottom, f"<difficult>{int(crowd)}</difficult>")
            for (left, top, right, bottom), label, crowd in zip(
                *(sample.target[key].tolist() for key in ("boxes", "labels", "crowd")), strict=True
            )
        ]
        names.append(Path(sample.id).stem)
        write(root / f"Annotations/{names[-1]}.xml", voc_xml(objects, sample.size))
        link(data.root / sample.id, root / "JPEGImages" / Path(sample.id).name)
    write(root / f"ImageSets/Main/{data.split}.txt", "\n".join(names))


def voc_xml(objects: Any, size: tuple[Any, Any] = (80, 100)) -> str:
    """An xml of objects (name, xmin, ymin, xmax, ymax, more elements) on an image of this (height, width)."""
    things = "".join(
        f"<object><name>{escape(name)}</name>{''.join(more)}<bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, left, top, right, bottom, *more in objects
    )
    height, width = size
    return (
        f"<annotation><filename>whatever.jpg</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size><segmented>0</segmented>{things}</annotation>"
    )


def link(there: Path, here: Path) -> None:
    here.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(there.absolute(), here)
