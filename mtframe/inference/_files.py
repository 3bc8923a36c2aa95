"""Predicting files: what is said of each, and what is written of it."""

# Shapes: Q pictures, D embedding dimensions.

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtframe.data import read_image
from mtframe.drawing import draw_marks, make_folder, save_picture, to_pil
from mtframe.errors import BadImageError, MtframeError, described
from mtframe.files import write_bytes
from mtframe.kinds import Embeds, WritesFiles
from mtframe.marks import Bar, Mark, Text

from ._gallery import Gallery
from ._paths import Paths
from ._pictures import FilePictures, Source
from ._predictor import BATCH_SIZE, Prediction, Predictor
from ._similar import SimilarPictures

# Threads that draw while the network works, and pictures that may wait for them: each holds its marks, and the mask
# of a photograph may have a hundred megabytes.
_DRAWING, _WAITING = 2, 8

# What keeps one file from being written and no other: its name, or how large it is; None: an encoder says so itself.
_OF_ONE = (
    None, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EFBIG,
    errno.ELOOP,
)  # fmt: skip

# A dictionary about one file, and the files that were written of it.
Take = Callable[[dict[str, Any], list[Path]], None]


@dataclass
class FilePredictions:
    """What came of predicting files.

    Attributes:
        described: A dictionary a file, ready for JSON: `source`, `size` (height, width), `tasks`, and what was written
            of it (`picture`, `files`).
        pictures: Files that were written.
        unreadable: Files that could not be read, with the reason.
        unwritten: Files of which something could not be drawn or written, with the reason.
        embeddings: By task, (Q, D) float32 of unit length, in the order of `described`.
    """

    described: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
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
    take: Take | None = None,
    keep_embeddings: bool = True,
) -> FilePredictions:
    """Predicts image files and draws the results, in memory that grows with their number only by the answers.

    With `take`, and without `keep_embeddings`, it does not grow but by the names.

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
        take: Is given what is said of each file and what was written of it, in order, once it is; neither is in what is
            returned then.
        keep_embeddings: Whether to return embeddings.

    Returns:
        Predictions, written pictures, and what could not be read or written.

    Raises:
        RecipeError: There is no such task, `out` cannot be a folder, or a picture that is read would be written over.
        MtframeError: No more pictures can be written: the disk is full, or the folder is not to be written to.
    """
    transforms = predictor.transforms(tasks)
    batches = FilePictures([source.file for source in sources], transforms, batch_size)
    results = _Results(predictor, sources, out, threshold, galleries or {}, picture_format, take, keep_embeddings)
    with results:
        for pictures in batches.batches(predictor.assembly.recipe.train.workers):
            results.found.unreadable += pictures.unreadable
            found = predictor.predict_batches(pictures.batches)
            for file, size, predictions in zip(pictures.names, pictures.sizes, found, strict=True):
                results.add(file, size, predictions)
    return results.found


def check_out(sources: Iterable[Source], out: Path, picture_format: str, gallery: Iterable[Path] = ()) -> None:
    """Raises RecipeError if a picture that is read would be written over.

    Args:
        sources: The images.
        out: Folder for pictures.
        picture_format: Their format.
        gallery: Pictures that are read besides the sources.
    """
    sources = list(sources)
    Paths((*(source.file for source in sources), *gallery), _drawn(sources, out, picture_format).values())


def _drawn(sources: Iterable[Source], out: Path, picture_format: str) -> dict[str, Path]:
    """Where each source is drawn."""
    return {str(source.file): out / f"{source.name}.{picture_format}" for source in sources}


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
        take: Take | None,
        keep_embeddings: bool,
    ) -> None:
        read = [source.file for source in sources]
        read += {file for gallery in galleries.values() for file in gallery.files}
        self._pictures = _drawn(sources, out, picture_format)
        self._paths = Paths(read, self._pictures.values())
        make_folder(out)
        self.found = FilePredictions()
        self._sources = {str(source.file): source for source in sources}
        self._take, self._keep_embeddings = take or self._keep, keep_embeddings
        self._predictor, self._out, self._format = predictor, out, picture_format
        self._threshold, self._galleries = threshold, galleries
        self._embeddings: dict[str, list[Tensor]] = {}
        self._similar: dict[str, SimilarPictures] = {}
        self._pool = ThreadPoolExecutor(_DRAWING)
        # What is said of a file, what was written of it, and its picture while that is drawn, if there is one.
        self._waiting: deque[tuple[dict[str, Any], list[Path], Future[None] | None]] = deque()

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
        path, files = self._pictures[file], dict[str, list[Path]]()
        with self._failing_alone(file):
            _write_files(self._predictor, self._paths, path.with_name(path.stem), predictions, files)
        if files:
            said["files"] = {task: [str(written) for written in its] for task, its in files.items()}
        embedding = {
            task: target for task in predictions if isinstance(target := self._predictor.targets[task], Embeds)
        }
        for task, target in embedding.items():
            vector = target.embedding(predictions[task])
            self._similar.setdefault(task, SimilarPictures()).add(self._sources[file], vector)
            if self._keep_embeddings:
                self._embeddings.setdefault(task, []).append(vector)
        marks = _marks(self._predictor, predictions, self._galleries)
        # An embedding alone shows nothing.
        shows = any(marks.values()) or not embedding
        drawn = self._pool.submit(_draw, Path(file), marks, self._threshold, path) if shows else None
        self._waiting.append((said, [written for its in files.values() for written in its], drawn))
        self._wait(_WAITING)

    def _keep(self, said: dict[str, Any], written: list[Path]) -> None:
        self.found.described.append(said)
        self.found.pictures += written

    def _wait(self, most: int) -> None:
        """Waits until at most `most` files are not told of. Raises what keeps all pictures from being drawn."""
        while len(self._waiting) > most:
            said, written, drawn = self._waiting.popleft()
            with self._failing_alone(said["source"]):
                if drawn is not None:
                    drawn.result()
                    path = self._pictures[said["source"]]
                    said["picture"] = str(path)
                    written.append(path)
            self._take(said, written)

    def _compare(self) -> None:
        """The sheets of similar pictures."""
        self.found.embeddings = {task: torch.stack(rows) for task, rows in self._embeddings.items()}
        for task, similar in self._similar.items():
            if similar.count > 1:
                path = self._paths.free(self._out / f"{task}_similar.{self._format}")
                with self._failing_alone(path.name):
                    save_picture(similar.sheet(), path)
                    self.found.pictures.append(path)

    @contextmanager
    def _failing_alone(self, name: str) -> Iterator[None]:
        """Notes what keeps one file from being drawn or written; raises what keeps all."""
        try:
            yield
        except (MtframeError, OSError, ValueError, OverflowError, MemoryError) as error:
            if not _of_one(error):
                raise
            self.found.unwritten.append(f"{name}: {error if isinstance(error, MtframeError) else described(error)}")


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
            {"name": name, "similarity": value}
            for name, value in gallery.nearest(predictor.embedding(task, predictions[task]))
        ]
        for task, gallery in galleries.items()
        if task in predictions
    }
    matches = {
        task: {"name": gallery.match(predictor.embedding(task, predictions[task])), "threshold": gallery.threshold}
        for task, gallery in galleries.items()
        if task in predictions and gallery.threshold is not None
    }
    return {**said, **({"match": matches} if matches else {}), **({"nearest": nearest_to} if nearest_to else {})}


def _marks(
    predictor: Predictor, predictions: Mapping[str, Prediction], galleries: Mapping[str, Gallery]
) -> dict[str, list[Mark]]:
    """How what all tasks say is drawn, by task; the nearest identities of a gallery where there is one."""
    marks: dict[str, list[Mark]] = {}
    for task, prediction in predictions.items():
        marks[task] = predictor.targets[task].marks(prediction)
        if task in galleries:
            gallery, embedding = galleries[task], predictor.embedding(task, prediction)
            if gallery.threshold is not None:
                match = gallery.match(embedding)
                marks[task] = [*marks[task], Text("nobody in the gallery" if match is None else match)]
            found = gallery.nearest(embedding)
            marks[f"{task}: most similar"] = [Bar(name, f"{value:.2f}", max(0.0, value)) for name, value in found]
    return marks


def _of_one(error: Exception) -> bool:
    """Whether others can be written all the same: not to a disk that is full."""
    cause = error.__cause__ or error.__context__ or error
    return isinstance(error, BadImageError) or not isinstance(cause, OSError) or cause.errno in _OF_ONE


def _write_files(
    predictor: Predictor,
    paths: Paths,
    stem: Path,
    predictions: Mapping[str, Prediction],
    written: dict[str, list[Path]],
) -> None:
    """Writes what JSON is no place for into files beside the pictures, whose names begin with `stem`.

    Args:
        predictor: Knows the kinds of target.
        paths: Where files can go.
        stem: What their names begin with.
        predictions: Of one picture, by task.
        written: Gets those that are written, by task.
    """
    for task, prediction in predictions.items():
        target = predictor.targets[task]
        for end, content in target.files(prediction).items() if isinstance(target, WritesFiles) else ():
            path = paths.free(stem.with_name(f"{stem.name}_{task}_{end}"))
            make_folder(path.parent)
            try:
                write_bytes(path, content)
            except OSError as error:
                raise MtframeError(f"{path} could not be written ({error.strerror or error})") from error
            written.setdefault(task, []).append(path)


def _draw(file: Path, marks: Mapping[str, Sequence[Mark]], threshold: float, path: Path) -> None:
    """Reads a picture again, whole, and writes it with marks on it."""
    pixels, _ = read_image(file, upright=True)
    save_picture(draw_marks(to_pil(pixels), marks, threshold=threshold), path)
