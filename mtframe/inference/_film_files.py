"""What is made of a film: the film with marks on it, and a line of JSON for each frame."""

# Shapes: H height, W width of a frame.

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import numpy as np

from mtframe.drawing import draw_marks, make_folder, size_drawn, to_pil
from mtframe.errors import DataError, MtframeError
from mtframe.files import growing
from mtframe.kinds import Embeds
from mtframe.marks import Mark
from mtframe.video import Cut, Film, FilmWriter, Sound

from ._films import PredictedFrame, predicted_frames
from ._gallery import Gallery
from ._paths import Paths
from ._pictures import Source, Transforms
from ._predictor import Predictor
from ._said import described_in_json, marks_of, write_files

# What the film and the lines are called behind the source's name.
FILM, LINES = ".mp4", ".jsonl"

# Frames that may wait to be drawn, and pieces of sound before the first frame.
_WAITING, _SOUNDS = 8, 4096


def film_file(out: Path, source: Source) -> Path:
    """Where a film is drawn."""
    return out / f"{source.name}{FILM}"


class FilmFiles:
    """One film: read, predicted, told of, drawn by threads while the network works, and written.

    Args:
        predictor: A loaded run.
        source: The film.
        path: Where it is drawn; the lines go beside it.
        threshold: Least score of a mark that is drawn.
        galleries: By task, whom embeddings are compared with.
        pool: Threads that draw.
        paths: Where files go that JSON is no place for; None for nowhere.

    Attributes:
        length: Seconds that are predicted; None if unknown.
        written: Files.
        unreadable: What could not be read, with the reason.
        notes: What else is worth knowing.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        path: Path,
        threshold: float,
        galleries: Mapping[str, Gallery],
        pool: ThreadPoolExecutor,
        paths: Paths | None,
    ) -> None:
        self._predictor, self._source, self._path = predictor, source, path
        self._threshold, self._galleries, self._pool, self._paths = threshold, galleries, pool, paths
        self.length: float | None = None
        self.written: list[Path] = []
        self.unreadable: list[str] = []
        self.notes: list[str] = []
        self._unfit = 0

    def predicted(
        self, transforms: Transforms, cut: Cut, batch_size: int
    ) -> Generator[tuple[dict[str, Any], list[Path], PredictedFrame], None, None]:
        """What is said of each frame, the files that were written of it, and the frame.

        Args:
            transforms: What makes inputs of frames.
            cut: Which frames.
            batch_size: Frames in a pass.

        Raises:
            MtframeError: Nothing more can be written.
        """
        drawn = _Drawn(self._path, self._threshold, self._pool)
        lines = _Lines(self._path.with_suffix(LINES))
        try:
            with Film(self._source.file) as film:
                end = film.duration if cut.end is None else min(cut.end, film.duration or cut.end)
                self.length = None if end is None else max(0.0, end - cut.start)
                items = predicted_frames(
                    self._predictor, film, cut, transforms, batch_size, sound=True, unfit=self._leave_out
                )
                try:
                    with lines, drawn, closing(items):
                        for item in items:
                            if isinstance(item, Sound):
                                drawn.add_sound(item)
                            else:
                                yield self._took(item, film, drawn, lines)
                finally:
                    if problem := film.problem():
                        self.unreadable.append(problem)
        except DataError as error:
            self.unreadable.append(str(error))
        finally:
            if self._unfit > 1:
                self.unreadable.append(f"{self._source.file}: {self._unfit} frames in all were left out")
            self.written += [*drawn.written, *lines.written]
            self.notes += [f"{self._source.file}: {drawn.silent}"] if drawn.silent else []

    def _took(
        self, frame: PredictedFrame, film: Film, drawn: _Drawn, lines: _Lines
    ) -> tuple[dict[str, Any], list[Path], PredictedFrame]:
        """A frame, told of and on its way into the film."""
        height, width = frame.image.shape[1:]
        said = described_in_json(
            self._predictor, str(self._source.file), (height, width), frame.predictions, self._galleries
        )
        said = {"source": said.pop("source"), "frame": frame.number, "time": round(frame.time, 6), **said}
        files = dict[str, list[Path]]()
        if self._paths is not None:
            stem = self._path.with_name(f"{self._path.stem}_{frame.number:06}")
            write_files(self._predictor, self._paths, stem, frame.predictions, files)
        if files:
            said["files"] = {task: [str(written) for written in its] for task, its in files.items()}
        lines.add(said)
        # A film with nothing on it is the one that is there.
        if self._galleries or not all(isinstance(self._predictor.targets[task], Embeds) for task in frame.predictions):
            drawn.add(frame, marks_of(self._predictor, frame.predictions, self._galleries), film)
        return said, [written for its in files.values() for written in its], frame

    def _leave_out(self, reason: str) -> None:
        self._unfit += 1
        if self._unfit == 1:
            self.unreadable.append(reason)


class _Lines:
    """A line of JSON for each frame, in a file that grows; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self.written: list[Path] = []

    def __enter__(self) -> _Lines:
        make_folder(self._path.parent)
        try:
            self._file = growing(self._path)
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if not self.written:
            # Of a film without a frame there is nothing to tell.
            self._path.unlink(missing_ok=True)

    def add(self, said: Mapping[str, Any]) -> None:
        """A frame; it is there when the process is killed. Raises MtframeError if it cannot be written."""
        assert self._file is not None
        try:
            self._file.write(json.dumps(said) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error
        self.written = [self._path]

    def _failed(self, error: OSError) -> MtframeError:
        return MtframeError(f"{self._path} could not be written ({error.strerror or error})")


class _Drawn:
    """The film with marks on it, drawn by threads, with its sound; a context manager, which finishes it.

    It begins with the first frame.
    """

    def __init__(self, path: Path, threshold: float, pool: ThreadPoolExecutor) -> None:
        self._path, self._threshold, self._pool = path, threshold, pool
        self._writer: FilmWriter | None = None
        self._size: tuple[int, int] = (0, 0)
        # In the order of the film: a frame while it is drawn, or a piece of sound.
        self._waiting: deque[tuple[int, Future[np.ndarray]] | Sound] = deque()
        self.written: list[Path] = []
        self.silent = ""

    def __enter__(self) -> _Drawn:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is None:
            return
        with self._writer as writer:
            if not writer.lost:
                self._write(0)
        if writer.frames and not writer.lost:
            self.written = [self._path]

    def add(self, frame: PredictedFrame, marks: Mapping[str, Sequence[Mark]], film: Film) -> None:
        """The next frame."""
        if self._writer is None:
            height, width = frame.image.shape[1:]
            self._size = size_drawn((width, height), marks)
            self._writer = FilmWriter(self._path, self._size, film.unit, film.rate, film.sound)
            self.silent = self._writer.silent
        drawn = self._pool.submit(_draw, frame, marks, self._threshold, self._size)
        self._waiting.append((frame.ticks, drawn))
        self._write(_WAITING)

    def add_sound(self, sound: Sound) -> None:
        """The next piece of sound; kept until there is a film."""
        self._waiting.append(sound)
        if self._writer is None and len(self._waiting) > _SOUNDS:
            self._waiting.popleft()

    def _write(self, most: int) -> None:
        """Writes what is drawn, until at most so much waits."""
        while self._writer is not None and len(self._waiting) > most:
            item = self._waiting.popleft()
            if isinstance(item, Sound):
                self._writer.add_sound(item.packet)
            else:
                ticks, drawn = item
                self._writer.add(drawn.result(), ticks)


def _draw(
    frame: PredictedFrame, marks: Mapping[str, Sequence[Mark]], threshold: float, size: tuple[int, int]
) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.asarray(draw_marks(to_pil(frame.image), marks, threshold=threshold, drawn=size))
