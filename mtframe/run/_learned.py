"""Which images a run has learned from: 8 bytes of each, kept beside its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors

from mtframe import files
from mtframe.errors import CheckpointError, TrainingError
from mtframe.paths import regular

_FILE = "images.safetensors"


def write_learned(folder: Path, marks: Mapping[str, np.ndarray]) -> None:
    """Keeps the marks (`mtframe.data.content_marks`) of what was learned from in a run, by where in words.

    Raises:
        TrainingError: They cannot be written.
    """
    tensors = {where: torch.from_numpy(np.unique(its)) for where, its in marks.items()}
    try:
        files.write_bytes(folder / _FILE, safetensors.save(tensors), follow=False)
    except OSError as error:
        raise TrainingError(f"{folder / _FILE} could not be written ({error.strerror or error})") from error


def read_learned(folder: Path) -> dict[str, np.ndarray] | None:
    """What `write_learned` has kept in a run; None if it is of a version that kept nothing.

    Raises:
        CheckpointError: The file is damaged.
    """
    file = folder / _FILE
    if not file.exists():
        return None
    try:
        found = safetensors.load(regular(file).read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: cannot be read as marks of images ({error})") from None
    if wrong := [name for name, marks in found.items() if marks.dtype != torch.int64 or marks.dim() != 1]:
        raise CheckpointError(f"{file}: {wrong[0]!r}: expected a row of 64-bit numbers")
    return {where: marks.numpy() for where, marks in found.items()}
