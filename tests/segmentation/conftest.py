from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteMask = Callable[[Path, Sequence[Sequence[int]]], None]
WriteImage = Callable[..., None]


@pytest.fixture
def write_mask() -> WriteMask:
    """Called with a path and rows of numbers."""

    def write(path: Path, rows: Sequence[Sequence[int]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(rows, np.uint8)).save(path)

    return write


@pytest.fixture
def write_image() -> WriteImage:
    """Called with a path and perhaps a (height, width)."""

    def write(path: Path, size: tuple[int, int] = (2, 3)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)

    return write


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic scenes of 64 pixels, to be read only."""
    from mtframe_segmentation.semantic_masks import SemanticMasks

    root = tmp_path_factory.mktemp("scenes")
    SemanticMasks.synthesize(root, train=160, val=24, size=64, workers=1)
    return root
