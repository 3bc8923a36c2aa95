"""Embeddings of files for use elsewhere."""

# Shapes: Q pictures, D embedding dimensions.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mtframe.errors import MtframeError, RecipeError
from mtframe.files import make_folder, replacing

_EMBEDDINGS = (".npz", ".parquet")


def check_embeddings_file(path: Path) -> None:
    """Raises RecipeError unless embeddings can be written in the format that a file's suffix names."""
    if path.suffix not in _EMBEDDINGS:
        raise RecipeError(f"--embeddings: expected a file that ends with {' or '.join(_EMBEDDINGS)}, got {path}")
    if path.suffix == ".parquet":
        _pyarrow()


def save_embeddings(
    embeddings: Mapping[str, Tensor],
    files: Sequence[str],
    path: Path,
    frames: Sequence[tuple[int, float] | None] | None = None,
) -> None:
    """Writes embeddings with the files, and the frames of films, that they are of.

    Args:
        embeddings: By task, (Q, D) of unit length.
        files: Q names.
        path: `.npz` holds the arrays `source` (Q,), text, and `TASK.embedding` (Q, D), float32; `.parquet` the same as
            columns.
        frames: Of each the number and time in its film, None of a picture. If one is of a film, there are `frame` (Q,)
            int64 and `time` (Q,) float64, too: -1 and NaN of pictures.

    Raises:
        RecipeError: The suffix is another, or there is no embedding.
        MtframeError: It cannot be written.
    """
    check_embeddings_file(path)
    if not embeddings:
        raise RecipeError("--embeddings: no task gave an embedding of a file")
    sources = np.array(files, np.str_)
    places: dict[str, np.ndarray] = {}
    if any(frames or ()):
        told = [(-1, math.nan) if frame is None else frame for frame in frames or ()]
        places = {"frame": np.array([number for number, _ in told]), "time": np.array([time for _, time in told])}
    arrays = {f"{task}.embedding": rows.float().numpy() for task, rows in embeddings.items()}
    try:
        make_folder(path.parent)
        with replacing(path) as file:
            if path.suffix == ".npz":
                savez: Any = np.savez
                savez(file, source=sources, **places, **arrays)
            else:
                pyarrow, parquet = _pyarrow()
                kind = pyarrow.list_(pyarrow.float32())
                columns = {name: pyarrow.array(list(rows), kind) for name, rows in arrays.items()}
                parquet.write_table(pyarrow.table({"source": sources.tolist(), **places, **columns}), file)
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
