from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WritePerson = Callable[..., None]


def _write_person(folder: Path, name: str, numbers: list[int], size: tuple[int, int] = (40, 40)) -> None:
    """Noise pictures that differ from each other; `size` is (width, height)."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng([*name.encode(), number])
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{name}_{number:04d}.jpg")


@pytest.fixture
def write_person() -> WritePerson:
    """Called with the folder of people, a name, image numbers and perhaps a size."""
    return _write_person


@pytest.fixture
def lfw_root(tmp_path: Path) -> Path:
    """Ann (3 images), Bob (2) and Eve (1) train; Kim, Lea and Max are in View 1."""
    root = tmp_path / "lfw_data"
    folder = root / "lfw-deepfunneled"
    for name, count in {"Ann": 3, "Bob": 2, "Eve": 1, "Kim": 3, "Lea": 2, "Max": 1}.items():
        _write_person(folder, name, list(range(1, count + 1)))
    (root / "peopleDevTrain.txt").write_text("4\nAnn\t4\nBob\t2\nEve\t1\nGus\t5\n", encoding="utf-8")
    (root / "pairsDevTest.txt").write_text(
        "2\nKim\t1\t3\nLea\t1\t2\nKim\t2\tMax\t1\nKim\t1\tLea\t1\n", encoding="utf-8"
    )
    return root


@pytest.fixture
def view2(lfw_root: Path) -> Path:
    """Adds a View 2 file of two folds with one matched and one mismatched pair each."""
    (lfw_root / "pairs.txt").write_text(
        "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t2\nKim\t1\t2\nKim\t3\tLea\t1\n", encoding="utf-8"
    )
    return lfw_root
