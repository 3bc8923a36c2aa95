"""Films through the network: batches of frames, read and made inputs in a thread while the network works."""

# Shapes: H height, W width of a frame.

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from mtframe.data import Batch, Sample
from mtframe.errors import DataError
from mtframe.video import Cut, Film, Frame, Sound, read_ahead

from ._pictures import Transforms, inputs_of_pictures

if TYPE_CHECKING:
    from ._predictor import Predictions, Predictor

# Batches that may wait for the network, and pieces of sound that may wait for a frame.
_WAITING, _SOUNDS = 1, 256


@dataclass(frozen=True, slots=True)
class PredictedFrame:
    """What each task says of a frame of a film.

    Attributes:
        number: The frame's place in the film, from 0 on.
        time: Seconds since the film began.
        ticks: The same in units of the film, since it or the cut began (`mtframe.video.Frame`).
        image: (3, H, W) uint8, RGB, turned upright.
        predictions: By task, in pixels of `image`; as of `Predictor.predict`.
    """

    number: int
    time: float
    ticks: int
    image: Tensor
    predictions: Predictions


@dataclass
class _Batch:
    """Some frames of a film that could be made inputs, and the sound that comes before them.

    Attributes:
        frames: The frames.
        sound: The sound.
        inputs: Of the frames, by the tasks that look at them.
        unfit: What is said of frames that a transform makes nothing of.
    """

    frames: list[Frame]
    sound: list[Sound]
    inputs: dict[tuple[str, ...], Batch] = field(default_factory=dict)
    unfit: list[str] = field(default_factory=list)


def predicted_frames(
    predictor: Predictor,
    film: Film,
    cut: Cut,
    transforms: Transforms,
    batch_size: int,
    *,
    sound: bool = False,
    unfit: Callable[[str], None] | None = None,
) -> Generator[PredictedFrame | Sound, None, None]:
    """The wanted frames of a film with their predictions, in order, and between them its sound.

    Memory does not grow with the film's length. Of a camera each frame is given as soon as it is predicted.

    Args:
        predictor: A loaded run.
        film: Open.
        cut: Which frames.
        transforms: What makes inputs of frames.
        batch_size: Frames in a pass; of a camera one is.
        sound: Whether to give the sound, too.
        unfit: Is told of frames that a transform can make nothing of, which are left out; None for an error.

    Raises:
        DataError: A transform can make nothing of a frame.
    """
    batches = _batches(film.read(cut, sound=sound), film.name, transforms, 1 if film.camera else batch_size)
    reading = read_ahead(batches, _WAITING)
    try:
        for batch in reading:
            for reason in batch.unfit:
                if unfit is None:
                    raise DataError(reason)
                unfit(reason)
            yield from batch.sound
            if batch.frames:
                found = predictor.predict_batches(batch.inputs)
                for frame, predictions in zip(batch.frames, found, strict=True):
                    yield PredictedFrame(frame.number, frame.time, frame.ticks, frame.image, predictions)
    finally:
        # Before the film is closed: the thread reads it.
        reading.close()


def _batches(items: Iterator[Frame | Sound], name: str, transforms: Transforms, size: int) -> Iterator[_Batch]:
    """Frames in batches, made inputs; the sound with them, or before them where it becomes much."""
    frames, sound = list[Frame](), list[Sound]()
    for item in items:
        if isinstance(item, Sound):
            sound.append(item)
        else:
            frames.append(item)
        if len(frames) == size:
            yield _batch(frames, sound, name, transforms)
            frames, sound = [], []
        elif len(sound) == _SOUNDS:
            yield _Batch([], sound)
            sound = []
    yield _batch(frames, sound, name, transforms)


def _batch(frames: list[Frame], sound: list[Sound], name: str, transforms: Transforms) -> _Batch:
    samples = [
        Sample(frame.image, {}, (frame.image.shape[1], frame.image.shape[2]), id=f"{name}, frame {frame.number}")
        for frame in frames
    ]
    made = inputs_of_pictures([dict.fromkeys(transforms, sample) for sample in samples], transforms, [])
    taken = set(made.names)
    kept = [frame for frame, sample in zip(frames, samples, strict=True) if sample.id in taken]
    return _Batch(kept, sound, made.batches, made.unreadable)
