from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., None]
WriteCsv = Callable[[str], Path]


def _write_image(path: Path, size: tuple[int, int] = (12, 10)) -> None:
    """Noise; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([*path.name.encode()])
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)


@pytest.fixture
def write_image() -> WriteImage:
    """Called with a path and perhaps a size."""
    return _write_image


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Cats (3) and dogs (2) train, a dog and a cat validate."""
    root = tmp_path / "pets"
    for name in ("train/cat/a.jpg", "train/cat/b.png", "train/cat/far/c.JPG", "train/dog/d.jpg", "train/dog/e.jpg",
                 "val/cat/f.jpg", "val/dog/g.jpg"):  # fmt: skip
        _write_image(root / name)
    (root / "train" / "cat" / "notes.txt").write_text("not an image", encoding="utf-8")
    (root / "train" / ".cache").mkdir()
    return root


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    """Writes `labels.csv` with this text and returns its folder."""

    def write(text: str) -> Path:
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
        return tmp_path

    return write
