"""What is said of a picture or a frame: in JSON, in marks, and in files where JSON is no place for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtframe.drawing import make_folder
from mtframe.errors import MtframeError
from mtframe.files import write_bytes
from mtframe.kinds import WritesFiles
from mtframe.marks import Bar, Mark, Text

from ._gallery import Gallery
from ._paths import Paths
from ._predictor import Prediction, Predictor


def described_in_json(
    predictor: Predictor,
    file: str,
    size: tuple[int, int],
    predictions: Mapping[str, Prediction],
    galleries: Mapping[str, Gallery],
) -> dict[str, Any]:
    """What all tasks say, ready for JSON; with the nearest identities of galleries, and who of them it is.

    Args:
        predictor: Knows the kinds of target.
        file: What the picture is called.
        size: (height, width) in pixels.
        predictions: By task.
        galleries: By task.
    """
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


def marks_of(
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


def write_files(
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
