"""Reads and checks the text files of YOLO: one an image, a line a box."""

# Shapes: A annotations.

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mtframe.errors import DataError
from mtframe.omissions import BAD_LABELS, WRONG_LABELS, Mistakes
from mtframe.paths import regular

from ._files import found_elsewhere
from .annotations import Annotations, collect

# Tools round, and a box at the border may be said to be a little larger than its image.
_SLACK = 0.01


def read_labels(
    root: Path, split: str, images: Sequence[str], num_classes: int, bad_labels: float = BAD_LABELS
) -> Annotations:
    """The boxes of these images, in parts of their sides.

    Args:
        root: Folder that paths are relative to.
        split: For messages.
        images: Paths relative to the root.
        num_classes: How many classes there are.
        bad_labels: Part of the images that may be left out, since something is wrong in their file.

    Raises:
        DataError: Of everything that is wrong in the files, if these are more; or where not even a folder of labels is
            there.
    """
    files = [label_file(image) for image in images]
    if not any(os.path.isdir(root / folder) for folder in {PurePosixPath(file).parent for file in files}):
        elsewhere = found_elsewhere(root, images, label_file)
        raise DataError(f"yolo {split}: no folder of labels; expected '{root / files[0]}' for '{images[0]}'{elsewhere}")
    owner: list[int] = []
    rows: list[tuple[float, ...]] = []
    mistakes = Mistakes()
    kept: list[str] = []
    outlines = 0
    for image, file in enumerate(files):
        its, wrong = _read(root / file, num_classes)
        for one in wrong:
            mistakes.add(image, one)
        if wrong:
            continue
        owner += [len(kept)] * len(its)
        rows += [row for row, _ in its]
        outlines += sum(is_outline for _, is_outline in its)
        kept.append(images[image])
    notes = mistakes.excused(len(images), bad_labels, f"yolo {split}", "images")
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    annotations = collect(
        f"yolo {split}",
        split,
        kept,
        np.array(owner, dtype=np.int64),
        # A box at the border should end there, not 1e-17 before it.
        table[:, 1:].round(9),
        table[:, 0].astype(np.int64),
        np.zeros(len(table), dtype=bool),
        meant="centre and size",
    )
    if outlines:
        notes += (f"{split}: {outlines} lines are outlines; the boxes around them are taken",)
    return annotations.noting(*notes).omitting({WRONG_LABELS: len(mistakes)})


def label_file(image: str) -> str:
    """Where an image's labels are: the last folder `images` of its path is `labels` there."""
    path = PurePosixPath(image).with_suffix(".txt")
    parts = list(path.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return "/".join(parts)


def _read(file: Path, num_classes: int) -> tuple[list[tuple[tuple[float, ...], bool]], list[str]]:
    """Label and box of each line, and whether it is an outline; and what is wrong with the file."""
    try:
        lines = regular(file).read_text(encoding="utf-8-sig").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        # Nothing is on the image.
        return [], []
    except (OSError, ValueError) as error:
        return [], [f"{file}: cannot be read as text ({error})"]
    rows, wrong = [], []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            rows.append((_parse(words, num_classes), len(words) > 5))
        except ValueError as error:
            wrong.append(f"{file}, line {number}: {error}")
    return rows, wrong


def _parse(words: Sequence[str], num_classes: int) -> tuple[float, ...]:
    """A line's label and its box, XYXY in parts of the image's sides. Raises ValueError with what is wrong."""
    try:
        label, *numbers = map(float, words)
    except ValueError:
        raise ValueError(f"expected numbers, got {_shown(words)}") from None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(
            f"expected class, centre x, centre y, width and height, or class and the x and y of three points or "
            f"more; got {len(words)} numbers"
        )
    if not all(map(math.isfinite, (label, *numbers))):
        raise ValueError(f"expected finite numbers, got {_shown(words)}")
    if not (0 <= label < num_classes and label.is_integer()):
        raise ValueError(f"class {words[0]} is not among the {num_classes} (0 to {num_classes - 1})")
    if min(numbers) < -_SLACK or max(numbers) > 1 + _SLACK:
        raise ValueError(f"expected parts of the image's width and height, 0 to 1, got {_shown(words[1:])}")
    if len(numbers) > 4:
        across, down = numbers[::2], numbers[1::2]
        return label, min(across), min(down), max(across), max(down)
    x, y, width, height = numbers
    if width < 0 or height < 0:
        raise ValueError(f"width or height is negative: {_shown(words[3:])}")
    return label, x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _shown(words: Sequence[str]) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= 60 else text[:57] + "...")
