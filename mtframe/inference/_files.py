"""Predicting files: what is said of each, and what is written of it."""

# Shapes: Q pictures, D embedding dimensions.

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mtframe.data import DecodeSize, read_image
from mtframe.drawing import draw_marks, make_folder, nearest, save_picture, similarity_sheet, to_pil
from mtframe.errors import MtframeError
from mtframe.kinds import Embeds, WritesFiles
from mtframe.marks import Bar, Mark

from ._gallery import Gallery
from ._paths import Paths
from ._pictures import FilePictures, Source
from ._predictor import BATCH_SIZE, Prediction, Predictor

# Threads that draw while the network works, and pictures that may wait for them: each holds its marks, and the mask
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
    """Predicts image files and draws the results, in memory that grows with their number only by the answers.

    Args:
        predictor: A loaded run.
        sources: The images.
        out: Folder for pictures: `NAME.FORMAT` with what is said of each, `TASK_similar.FORMAT` for embeddings of
            several images, `NAME_TASK_...` for what JSON is no place for; the latter two with a number appended
            where their name is taken.
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
    batches = FilePictures([source.file for source in sources], transforms, batch_size)
    with _Results(predictor, sources, out, threshold, galleries or {}, picture_format) as results:
        for pictures in batches.batches(predictor.assembly.recipe.train.workers):
            results.found.unreadable += pictures.unreadable
            found = predictor.predict_batches(pictures.batches)
            for file, size, predictions in zip(pictures.names, pictures.sizes, found, strict=True):
                results.add(file, size, predictions)
    return results.found


class _Results:
    """What comes of each file as it comes: described, written, drawn by threads while the network works.

    Leaving it waits for what is still drawn, and draws the sheets of similar pictures.
    """

    def __init__(
        self,
        predictor: Predictor,
        sources: Sequence[Source],
        out: Path,
        threshold: float,
        galleries: Mapping[str, Gallery],
        picture_format: str,
    ) -> None:
        make_folder(out)
        self.found = FilePredictions()
        self._predictor, self._out, self._format = predictor, out, picture_format
        self._threshold, self._galleries = threshold, galleries
        self._pictures = {str(source.file): out / f"{source.name}.{picture_format}" for source in sources}
        self._paths = Paths((source.file for source in sources), self._pictures.values())
        self._embeddings: dict[str, list[Tensor]] = {}
        self._pool = ThreadPoolExecutor(_DRAWING)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> _Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._wait(0)
            self._compare()

    def add(self, file: str, size: tuple[int, int], predictions: Mapping[str, Prediction]) -> None:
        """One file's predictions."""
        said = _described(self._predictor, file, size, predictions, self._galleries)
        self.found.described.append(said)
        path = self._pictures[file]
        if files := _write_files(self._predictor, self._paths, path.with_suffix(""), predictions):
            said["files"] = {task: [str(written) for written in its] for task, its in files.items()}
            self.found.pictures += [written for its in files.values() for written in its]
        embedding = {
            task: target for task in predictions if isinstance(target := self._predictor.targets[task], Embeds)
        }
        for task, target in embedding.items():
            self._embeddings.setdefault(task, []).append(target.embedding(predictions[task]))
        marks = _marks(self._predictor, predictions, self._galleries)
        # An embedding alone shows nothing.
        if any(marks.values()) or not embedding:
            said["picture"] = str(path)
            self.found.pictures.append(path)
            self._waiting.append(self._pool.submit(_draw, Path(file), marks, self._threshold, path))
            self._wait(_WAITING)

    def _wait(self, most: int) -> None:
        """Waits until at most `most` pictures are left to draw. Raises what drawing one has raised."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def _compare(self) -> None:
        """The sheets of similar pictures."""
        read = [Path(said["source"]) for said in self.found.described]
        for task, rows in self._embeddings.items():
            self.found.embeddings[task] = torch.stack(rows)
            if len(rows) > 1:
                path = self._paths.free(self._out / f"{task}_similar.{self._format}")
                save_picture(_similar(read, self.found.embeddings[task]), path)
                self.found.pictures.append(path)


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
    predictor: Predictor, paths: Paths, stem: Path, predictions: Mapping[str, Prediction]
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


def _draw(file: Path, marks: Mapping[str, Sequence[Mark]], threshold: float, path: Path) -> None:
    """Reads a picture again, whole, and writes it with marks on it."""
    pixels, _ = read_image(file, upright=True)
    save_picture(draw_marks(to_pil(pixels), marks, threshold=threshold), path)


def _similar(files: Sequence[Path], embeddings: Tensor) -> Image.Image:
    """The first pictures, each beside those of all files that are most similar to it."""
    rows = range(min(len(files), _SHEET_ROWS))
    _, near = nearest(embeddings, rows, _NEIGHBOURS)
    # Only these are opened again: there may be thousands.
    shown = sorted({*rows, *near.flatten().tolist()})
    pictures = [to_pil(read_image(files[n], DecodeSize(shorter=_SHEET_SIDE), upright=True)[0]) for n in shown]
    names = [files[n].stem for n in shown]
    return similarity_sheet(pictures, names, embeddings[shown], neighbours=_NEIGHBOURS, rows=rows)
