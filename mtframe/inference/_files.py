"""Predicting files: what is said of each, and what is written of it."""

# Shapes: Q pictures, D embedding dimensions.

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtframe.data import read_image
from mtframe.drawing import draw_marks, make_folder, save_picture, to_pil
from mtframe.errors import BadImageError, MtframeError, described
from mtframe.kinds import Embeds
from mtframe.marks import Mark
from mtframe.video import Cut

from ._film_files import LINES, FilmFiles, film_file
from ._gallery import Gallery
from ._paths import Paths
from ._pictures import FilePictures, Source, Transforms
from ._predictor import BATCH_SIZE, Prediction, Predictor
from ._said import described_in_json, marks_of, write_files
from ._similar import SimilarPictures

# Threads that draw while the network works, and pictures that may wait for them: each holds its marks, and the mask
# of a photograph may have a hundred megabytes.
_DRAWING, _WAITING = 2, 8

# What keeps one file from being written and no other: its name, or how large it is; None: an encoder says so itself.
_OF_ONE = (
    None, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EFBIG,
    errno.ELOOP,
)  # fmt: skip

# A dictionary about one file or frame, and the files that were written of it.
Take = Callable[[dict[str, Any], list[Path]], None]

# Of a film: its file, seconds that are done, and seconds in all, if that is known.
Watch = Callable[[Path, float, float | None], None]


@dataclass
class FilePredictions:
    """What came of predicting files.

    Attributes:
        described: A dictionary a picture or frame, ready for JSON: `source`, of a film `frame` and `time`, `size`
            (height, width), `tasks`, and what was written of it (`picture`, `files`).
        pictures: Files that were written.
        unreadable: Files that could not be read, or not to their end, with the reason.
        unwritten: Files of which something could not be drawn or written, with the reason.
        embeddings: By task, (Q, D) float32 of unit length, in the order of `described`.
        notes: What else is worth knowing, as why a film is silent.
    """

    described: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
    cut: Cut | None = None,
    frame_files: bool = False,
    watch: Watch | None = None,
) -> FilePredictions:
    """Predicts image files and films and draws the results, in memory that grows with their number only by the answers.

    With `take`, and without `keep_embeddings`, it does not grow but by the names, however long a film is.

    Args:
        predictor: A loaded run.
        sources: The images and films.
        out: Folder for pictures: `NAME.FORMAT` with what is said of each, `TASK_similar.FORMAT` for embeddings of
            several images, `NAME_TASK_...` for what JSON is no place for; the latter two with a number appended
            where their name is taken. Of a film `NAME.mp4`, and `NAME.jsonl` with a line a frame, which is written as
            the film is read.
        tasks: Only these; all if None.
        threshold: Least score of a mark that is drawn; JSON has them all.
        galleries: By task, whom embeddings are compared with.
        picture_format: `jpg`, `png` or `webp`.
        batch_size: Pictures in a pass.
        take: Is given what is said of each file and what was written of it, in order, once it is; neither is in what is
            returned then.
        keep_embeddings: Whether to return embeddings.
        cut: Which frames of films; all if None.
        frame_files: Whether to write what JSON is no place for, such as masks, of each frame of a film.
        watch: Is told how far a film is.

    Returns:
        Predictions, written pictures, and what could not be read or written.

    Raises:
        RecipeError: There is no such task, `out` cannot be a folder, or a picture that is read would be written over.
        MtframeError: No more pictures can be written: the disk is full, or the folder is not to be written to.
    """
    transforms = predictor.transforms(tasks)
    results = _Results(predictor, sources, out, threshold, galleries or {}, picture_format, take, keep_embeddings)
    with results:
        for film, some in groupby(sources, key=lambda source: source.film):
            if film:
                for source in some:
                    results.add_film(source, transforms, cut or Cut(), batch_size, frame_files, watch)
                continue
            batches = FilePictures([source.file for source in some], transforms, batch_size)
            for pictures in batches.batches(predictor.assembly.recipe.train.workers):
                results.found.unreadable += pictures.unreadable
                found = predictor.predict_batches(pictures.batches)
                for file, size, predictions in zip(pictures.names, pictures.sizes, found, strict=True):
                    results.add(file, size, predictions)
    return results.found


def check_out(sources: Iterable[Source], out: Path, picture_format: str, gallery: Iterable[Path] = ()) -> None:
    """Raises RecipeError if a picture that is read would be written over.

    Args:
        sources: The images and films.
        out: Folder for pictures.
        picture_format: Their format.
        gallery: Pictures that are read besides the sources.
    """
    sources = list(sources)
    Paths((*(source.file for source in sources), *gallery), _made(_drawn(sources, out, picture_format), sources))


def _drawn(sources: Iterable[Source], out: Path, picture_format: str) -> dict[str, Path]:
    """Where each source is drawn."""
    return {
        str(source.file): film_file(out, source) if source.film else out / f"{source.name}.{picture_format}"
        for source in sources
    }


def _made(drawn: Mapping[str, Path], sources: Iterable[Source]) -> list[Path]:
    """Where each source is drawn, and where the lines of films go."""
    lines = [drawn[str(source.file)].with_suffix(LINES) for source in sources if source.film]
    return [*drawn.values(), *lines]


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
        self._paths = Paths(read, _made(self._pictures, sources))
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
        said = described_in_json(self._predictor, file, size, predictions, self._galleries)
        path, files = self._pictures[file], dict[str, list[Path]]()
        with self._failing_alone(file):
            write_files(self._predictor, self._paths, path.with_name(path.stem), predictions, files)
        if files:
            said["files"] = {task: [str(written) for written in its] for task, its in files.items()}
        embedding = self._embedded(predictions)
        for task, vector in embedding.items():
            self._similar.setdefault(task, SimilarPictures()).add(self._sources[file], vector)
        marks = marks_of(self._predictor, predictions, self._galleries)
        # An embedding alone shows nothing.
        shows = any(marks.values()) or not embedding
        drawn = self._pool.submit(_draw, Path(file), marks, self._threshold, path) if shows else None
        self._waiting.append((said, [written for its in files.values() for written in its], drawn))
        self._wait(_WAITING)

    def add_film(
        self,
        source: Source,
        transforms: Transforms,
        cut: Cut,
        batch_size: int,
        frame_files: bool,
        watch: Watch | None,
    ) -> None:
        """A film: predicted, told of and drawn frame by frame, after what came before it."""
        self._wait(0)
        files = FilmFiles(
            self._predictor, source, self._pictures[str(source.file)], self._threshold, self._galleries, self._pool,
            self._paths if frame_files else None,
        )  # fmt: skip
        try:
            with self._failing_alone(str(source.file)), closing(files.predicted(transforms, cut, batch_size)) as frames:
                for said, written, frame in frames:
                    self._embedded(frame.predictions)
                    self._take(said, written)
                    if watch is not None:
                        watch(source.file, frame.time - cut.start, files.length)
        finally:
            self.found.pictures += files.written
            self.found.unreadable += files.unreadable
            self.found.notes += files.notes

    def _embedded(self, predictions: Mapping[str, Prediction]) -> dict[str, Tensor]:
        """Embeddings in some predictions, by task; they are kept, if they are to be."""
        found = {
            task: target.embedding(predictions[task])
            for task in predictions
            if isinstance(target := self._predictor.targets[task], Embeds)
        }
        for task, vector in found.items() if self._keep_embeddings else ():
            self._embeddings.setdefault(task, []).append(vector)
        return found

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


def _of_one(error: Exception) -> bool:
    """Whether others can be written all the same: not to a disk that is full."""
    cause = error.__cause__ or error.__context__ or error
    return isinstance(error, BadImageError) or not isinstance(cause, OSError) or cause.errno in _OF_ONE


def _draw(file: Path, marks: Mapping[str, Sequence[Mark]], threshold: float, path: Path) -> None:
    """Reads a picture again, whole, and writes it with marks on it."""
    pixels, _ = read_image(file, upright=True)
    save_picture(draw_marks(to_pil(pixels), marks, threshold=threshold), path)
