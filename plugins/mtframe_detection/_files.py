"""Whether images and labels that belong together lie where they find each other."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from mtframe.folders import IMAGE_SUFFIXES
from mtframe.kinds import Finding, Severity
from mtframe.paths import regular

# Files that are named in a finding.
_NAMED = 3

# Part of a split from which on misplaced files are no strays.
_MUCH = 0.5

# Files that are opened to see whether they hold boxes; the others are taken for the same.
_OPENED = 1000

# How a line of labels begins: a class and four numbers.
_BOX = re.compile(rb"^\s*\d+(\.0*)?(\s+[-+.\deE]+){4}")


def misplaced_labels(root: Path, images: Sequence[str], label_of: Callable[[str], str]) -> list[Finding]:
    """Label files that no image finds, and images whose labels seem to be such files.

    Args:
        root: Folder that paths are relative to, and that is searched.
        images: Paths of those of a split.
        label_of: Where an image's labels are expected.
    """
    expected: set[str] = set()
    texts: list[str] = []
    for file in _below(root):
        suffix = os.path.splitext(file)[1].lower()
        if suffix in IMAGE_SUFFIXES:
            expected.add(label_of(file))
        elif suffix == ".txt":
            texts.append(file)
    lost = _with_boxes(root, [file for file in texts if file not in expected])
    if not lost:
        return []
    there = set(texts)
    # `a.jpg.txt` is that of `a.jpg` too.
    by_stem = {PurePosixPath(file).stem: file for file in lost}
    elsewhere = {}
    for image in images:
        path = PurePosixPath(image)
        found = by_stem.get(path.name) or by_stem.get(path.stem)
        if found is not None and label_of(image) not in there:
            elsewhere[image] = found
    findings = []
    if elsewhere:
        some = tuple(
            f"{image}: expected {label_of(image)}, found {file}" for image, file in list(elsewhere.items())[:_NAMED]
        )
        severity: Severity = "error" if len(elsewhere) > _MUCH * len(images) else "warning"
        text = (
            f"the labels of {len(elsewhere)} of {len(images)} images seem to lie elsewhere; they count as images "
            "without boxes"
        )
        findings.append(Finding("labels-elsewhere", severity, text, some))
    # Those of other splits are told by these.
    folders, found_there = {os.path.dirname(label_of(image)) for image in images}, {*elsewhere.values()}
    if alone := [file for file in lost if file not in found_there and os.path.dirname(file) in folders]:
        text = f"{len(alone)} files of labels have no image"
        findings.append(Finding("label-without-image", "warning", text, tuple(alone[:_NAMED])))
    return findings


def found_elsewhere(root: Path, images: Sequence[str], label_of: Callable[[str], str]) -> str:
    """The end of a sentence that says what was expected: where the labels of an image seem to be, if anywhere."""
    found = [finding for finding in misplaced_labels(root, images, label_of) if finding.name == "labels-elsewhere"]
    return f"; {found[0].text.partition(';')[0]}, e.g. {found[0].examples[0]}" if found else ""


def _with_boxes(root: Path, files: Sequence[str]) -> list[str]:
    """Those of the files that begin with a box: what else a folder holds may be text too."""
    return [file for number, file in enumerate(files) if number >= _OPENED or begins_with_box(root / file)]


def begins_with_box(file: Path) -> bool:
    """Whether a text file begins with a line of a class and a box."""
    try:
        with regular(file).open("rb") as opened:
            return _BOX.match(opened.read(200)) is not None
    except OSError:
        return False


def _below(root: Path) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, but for hidden ones; links are followed, once each."""
    seen = set[tuple[int, int]]()
    for place, folders, names in os.walk(root, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(place).relative_to(root)
        yield from ((inner / name).as_posix() for name in sorted(names) if not name.startswith("."))
