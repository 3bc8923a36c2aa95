"""Predicting files: what is said of each, the pictures of it, and the embeddings for use elsewhere."""

# Shapes: Q pictures, D embedding dimensions.

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtframe.data import DecodeSize, read_image
from mtframe.drawing import draw_marks, make_folder, nearest, save_picture, similarity_sheet, to_pil
from mtframe.errors import MtframeError, RecipeError
from mtframe.kinds import Embeds, WritesFiles
from mtframe.marks import Bar, Mark

from ._gallery import Gallery
from ._pictures import FilePictures, Source
from ._predictor import BATCH_SIZE, Prediction, Predictor

_EMBEDDINGS = (".npz", ".parquet")

# Threads that draw beside the network's work, and pictures that may wait for them: each holds its marks, and the mask
# of a photograph may have a hundred megabytes.
_DRAWING, _WAITING = 2, 8

# Rows of the sheet of similar pictures. All files are compared; more rows are only in the JSON.
_SHEET_ROWS = 12
_NEIGHBOURS = 4

# Pixels of the shorter side of pictures on that sheet.
_SHEET_SIDE = 400


@dataclass
class FilePredictions:
    """What came of predicting files.

    Attributes:
        described: A dictionary a file, ready for JSON: `source`, `size` (height, width), `tasks`, and what was written
            of it (`picture`, `files`).
        pictures: Files that were written.
        unreadable: Files that could not be read, with the reason.
        embeddings: By task, (Q, D) float32 of unit length, in the order of `described`.
    """

    described: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    embeddings: dict[str, Tensor] = field(default_factory=dict)


def predict_files(
    predictor: Predictor,
    sources: Sequence[Source],
    out: Path,
    tasks: Sequence[str] | None = None,
    threshold: float = 0.3,
    galleries: Mapping[str, Gallery] | None = None,
    *,
    picture_format: str = "jpg",
    batch_size: int = BATCH_SIZE,
) -> FilePredictions:
    """Predicts image files and draws the results, in memory that does not grow with their number but for the answers.

    Args:
        predictor: A loaded run.
        sources: The images.
        out: Folder for pictures: `NAME.FORMAT` with what is said of each, `TASK_similar.FORMAT` for embeddings of
            several images, `NAME_TASK_...` for what JSON is no place for; the latter two with a number behind where
            their name is taken.
        tasks: Only these; all if None.
        threshold: Least score of a mark that is drawn; JSON has them all.
        galleries: By task, whom embeddings are compared with.
        picture_format: `jpg`, `png` or `webp`.
        batch_size: Pictures in a pass.

    Returns:
        Predictions, written pictures and what could not be read.

    Raises:
        RecipeError: There is no such task, `out` cannot be a folder, or a source would be written over.
        MtframeError: A picture cannot be written.
    """
    transforms = predictor.transforms(tasks)
    make_folder(out)
    names = {str(source.file): source.name for source in sources}
    paths = _Paths((source.file for source in sources), (out / f"{name}.{picture_format}" for name in names.values()))
    result = FilePredictions()
    embeddings: dict[str, list[Tensor]] = {}
    batches = FilePictures([source.file for source in sources], transforms, batch_size)
    with ThreadPoolExecutor(_DRAWING) as pool:
        waiting: deque[Future[Path]] = deque()
        for pictures in batches.batches(predictor.assembly.recipe.train.workers):
            result.unreadable += pictures.unreadable
            for file, size, found in zip(
                pictures.names, pictures.sizes, predictor.predict_batches(pictures.batches), strict=True
            ):
                said = _described(predictor, file, size, found, galleries or {})
                result.described.append(said)
                if files := _write_files(predictor, paths, out / names[file], found):
                    said["files"] = {task: [str(path) for path in written] for task, written in files.items()}
                    result.pictures += [path for written in files.values() for path in written]
                marks = _marks(predictor, found, galleries or {})
                if any(marks.values()) or not any(isinstance(predictor.targets[task], Embeds) for task in found):
                    path = out / f"{names[file]}.{picture_format}"
                    said["picture"] = str(path)
                    result.pictures.append(path)
                    waiting.append(pool.submit(_draw, Path(file), marks, threshold, path))
                for task, prediction in found.items():
                    if isinstance(target := predictor.targets[task], Embeds):
                        embeddings.setdefault(task, []).append(target.embedding(prediction))
                while len(waiting) > _WAITING:
                    waiting.popleft().result()
        for drawn in waiting:
            drawn.result()
    for task, rows in embeddings.items():
        result.embeddings[task] = torch.stack(rows)
        if len(rows) > 1:
            path = paths.free(out / f"{task}_similar.{picture_format}")
            read = [Path(said["source"]) for said in result.described]
            save_picture(_similar(read, result.embeddings[task]), path)
            result.pictures.append(path)
    return result


def check_embeddings_file(path: Path) -> None:
    """Raises RecipeError unless embeddings can be written in the format that a file's suffix names."""
    if path.suffix not in _EMBEDDINGS:
        raise RecipeError(f"--embeddings: expected a file that ends with {' or '.join(_EMBEDDINGS)}, got {path}")
    if path.suffix == ".parquet":
        _pyarrow()


def save_embeddings(predictions: FilePredictions, path: Path) -> None:
    """Writes embeddings with the files that they are of.

    `.npz` holds the arrays `source` (Q,), text, and `TASK.embedding` (Q, D), float32; `.parquet` the same as columns.

    Raises:
        RecipeError: The suffix is another, or there is no embedding.
        MtframeError: It cannot be written.
    """
    check_embeddings_file(path)
    if not predictions.embeddings:
        raise RecipeError("--embeddings: no task gave an embedding of a file")
    sources = np.array([row["source"] for row in predictions.described], np.str_)
    arrays = {f"{task}.embedding": rows.float().numpy() for task, rows in predictions.embeddings.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            savez: Any = np.savez
            savez(path, source=sources, **arrays)
        else:
            pyarrow, parquet = _pyarrow()
            kind = pyarrow.list_(pyarrow.float32())
            columns = {name: pyarrow.array(list(rows), kind) for name, rows in arrays.items()}
            parquet.write_table(pyarrow.table({"source": sources.tolist(), **columns}), path)
    except OSError as error:
        raise MtframeError(f"{path} could not be written ({error.strerror or error})") from error


def _pyarrow() -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RecipeError(
            "--embeddings: parquet files are written by pyarrow, which is not installed; install it with "
            "pip install 'mtframe[parquet]', or write .npz"
        ) from None
    return pyarrow, parquet


class _Paths:
    """Where files go: each to a place of its own, and none to that of a picture that is read.

    Args:
        read: The pictures that are read.
        drawn: Where these are drawn, under names that differ.

    Raises:
        RecipeError: One of these would be written over one of those.
    """

    def __init__(self, read: Iterable[Path], drawn: Iterable[Path]) -> None:
        self._read = {_file(path) for path in read} - {None}
        self._taken = set[str]()
        for path in drawn:
            if _file(path) in self._read:
                raise RecipeError(
                    f"--out: {path} is one of the pictures to read, and would be written over; choose another folder"
                )
            self._taken.add(_spelled(path))

    def free(self, path: Path) -> Path:
        """A path, or with the first number behind its name with which it is nobody's yet; it is taken from then on."""
        found, number = path, 1
        while _spelled(found) in self._taken or _file(found) in self._read:
            number += 1
            found = path.with_stem(f"{path.stem}-{number}")
        self._taken.add(_spelled(found))
        return found


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is there, whatever it is called and however its name is spelled; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _spelled(path: Path) -> str:
    # Some file systems take no notice of case.
    return os.path.abspath(path).casefold()


def _described(
    predictor: Predictor,
    file: str,
    size: tuple[int, int],
    predictions: Mapping[str, Prediction],
    galleries: Mapping[str, Gallery],
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "source": file,
        "size": list(size),
        "tasks": {task: predictor.describe(task, prediction) for task, prediction in predictions.items()},
    }
    nearest_to = {
        task: [
            {"name": name, "similarity": round(value, 6)}
            for name, value in gallery.nearest(predictor.embedding(task, predictions[task]))
        ]
        for task, gallery in galleries.items()
        if task in predictions
    }
    return {**said, "nearest": nearest_to} if nearest_to else said


def _marks(
    predictor: Predictor, predictions: Mapping[str, Prediction], galleries: Mapping[str, Gallery]
) -> dict[str, list[Mark]]:
    """How what all tasks say is drawn, by task; the nearest identities of a gallery where there is one."""
    marks: dict[str, list[Mark]] = {}
    for task, prediction in predictions.items():
        marks[task] = predictor.targets[task].marks(prediction)
        if task in galleries:
            found = galleries[task].nearest(predictor.embedding(task, prediction))
            marks[f"{task}: most similar"] = [Bar(name, f"{value:.2f}", max(0.0, value)) for name, value in found]
    return marks


def _write_files(
    predictor: Predictor, paths: _Paths, stem: Path, predictions: Mapping[str, Prediction]
) -> dict[str, list[Path]]:
    """What JSON is no place for, in files beside the pictures, whose names begin with `stem`."""
    written: dict[str, list[Path]] = {}
    for task, prediction in predictions.items():
        target = predictor.targets[task]
        for end, content in target.files(prediction).items() if isinstance(target, WritesFiles) else ():
            path = paths.free(stem.with_name(f"{stem.name}_{task}_{end}"))
            make_folder(path.parent)
            try:
                path.write_bytes(content)
            except OSError as error:
                raise MtframeError(f"{path} could not be written ({error.strerror or error})") from error
            written.setdefault(task, []).append(path)
    return written


def _draw(file: Path, marks: Mapping[str, Sequence[Mark]], threshold: float, path: Path) -> Path:
    """Reads a picture again, whole, and writes it with marks on it."""
    pixels, _ = read_image(file, upright=True)
    save_picture(draw_marks(to_pil(pixels), marks, threshold=threshold), path)
    return path


def _similar(files: Sequence[Path], embeddings: Tensor) -> Any:
    """The first pictures, each beside those of all files that are most similar to it."""
    rows = range(min(len(files), _SHEET_ROWS))
    _, near = nearest(embeddings, rows, _NEIGHBOURS)
    # Only these are opened again: there may be thousands.
    shown = sorted({*rows, *near.flatten().tolist()})
    pictures = [to_pil(read_image(files[n], DecodeSize(shorter=_SHEET_SIDE), upright=True)[0]) for n in shown]
    names = [files[n].stem for n in shown]
    return similarity_sheet(pictures, names, embeddings[shown], neighbours=_NEIGHBOURS, rows=rows)
