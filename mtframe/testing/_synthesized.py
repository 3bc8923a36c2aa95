"""Small synthetic data, once a process."""

from __future__ import annotations

import atexit
import inspect
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Of what data sets' `synthesize` may be asked for, as little as makes every check possible.
_SMALL = {
    "train": 12, "val": 8, "test": 8, "people": 4, "images": 4, "test_people": 4, "pairs": 10, "size": 64, "workers": 1,
}  # fmt: skip


@cache
def folder() -> Path:
    """A temporary folder, removed when the process ends."""
    made = TemporaryDirectory(prefix="mtframe-testing-")
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def synthesized(dataset: Any) -> Path:
    """The root of a little data that a data set's class has made of itself."""
    known = inspect.signature(dataset.synthesize).parameters
    root = folder() / f"{len(list(folder().iterdir()))}"
    dataset.synthesize(root, seed=0, **{name: value for name, value in _SMALL.items() if name in known})
    return root
