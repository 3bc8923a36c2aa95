"""Predicting files: what is said of each, the pictures of it, and the embeddings for use elsewhere."""

# Shapes: Q pictures, D embedding dimensions.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mtframe.data import read_image
from mtframe.errors import BadImageError, MtframeError, RecipeError

from ._draw import make_folder, save_picture, to_pil
from ._gallery import Gallery
from ._predictor import Predictor
from ._sheets import picture_of, similar_files

_EMBEDDINGS = (".npz", ".parquet")


@dataclass
class FilePredictions:
    """What came of predicting files.

    Attributes:
        described: A dictionary a file: `source`, `size` (height, width) and `tasks`, ready for JSON.
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
    files: Sequence[Path],
    out: Path,
    tasks: Sequence[str] | None = None,
    threshold: float = 0.3,
    galleries: Mapping[str, Gallery] | None = None,
) -> FilePredictions:
    """Predicts image files and draws the results.

    Args:
        predictor: A loaded run.
        files: The images.
        out: Folder for pictures: `STEM.png` with what is said of each, `TASK_similar.png` for embeddings of
            several images.
        tasks: Only these; all if None.
        threshold: Least score of a box that is drawn; JSON has them all.
        galleries: By task, whom embeddings are compared with.

    Returns:
        Predictions, written pictures and what could not be read.

    Raises:
        RecipeError: There is no such task, or `out` cannot be a folder.
        MtframeError: A picture cannot be written.
    """
    result = FilePredictions()
    tasks = predictor.chosen(tasks)
    make_folder(out)
    embeddings: dict[str, list[Tensor]] = {}
    read: list[Path] = []
    for file in files:
        try:
            pixels, size = read_image(file, upright=True)
            predictions = predictor.predict(pixels, tasks, name=str(file))
        except BadImageError as error:
            result.unreadable.append(str(error))
            continue
        read.append(file)
        result.described.append(_described(predictor, file, size, predictions, galleries or {}))
        drawn = picture_of(predictor, to_pil(pixels), predictions, threshold=threshold, galleries=galleries)
        if drawn is not None:
            result.pictures.append(_save(drawn, out, file.stem))
        for task, prediction in predictions.items():
            if "embedding" in prediction:
                embeddings.setdefault(task, []).append(prediction["embedding"])
    for task, rows in embeddings.items():
        result.embeddings[task] = torch.stack(rows)
        if len(rows) > 1:
            result.pictures.append(_save(similar_files(read, result.embeddings[task]), out, f"{task}_similar"))
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


def _described(
    predictor: Predictor,
    file: Path,
    size: tuple[int, int],
    predictions: Mapping[str, dict[str, Tensor]],
    galleries: Mapping[str, Gallery],
) -> dict[str, Any]:
    told = {task: predictor.describe(task, prediction) for task, prediction in predictions.items()}
    nearest = {
        task: [
            {"identity": name, "similarity": round(value, 6)}
            for name, value in gallery.nearest(predictions[task]["embedding"])
        ]
        for task, gallery in galleries.items()
        if task in predictions
    }
    return {"source": str(file), "size": list(size), "tasks": told, **({"nearest": nearest} if nearest else {})}


def _save(picture: Image.Image, out: Path, stem: str) -> Path:
    """Writes a PNG under a name that is free among those of this call and before."""
    path, count = out / f"{stem}.png", 1
    while path.exists():
        count += 1
        path = out / f"{stem}-{count}.png"
    save_picture(picture, path)
    return path
