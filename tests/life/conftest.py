from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from toy_tasks import TOY, Trained, train_two


@contextmanager
def no_pictures() -> Iterator[None]:
    """Half of a training of this size is drawing its losses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtframe_observers.csv_logger.plot_losses", lambda *arguments: None)
        yield


@pytest.fixture(autouse=True)
def _no_pictures() -> Iterator[None]:
    # For each test: a package without __init__.py ends with the session, and so would a patch for all of it.
    with no_pictures():
        yield


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Runs that are only read."""

    @cache
    def run(sizes: tuple[int, int] = (32, 32), sharing: str = "network", backbone: str = "") -> Path:
        out = tmp_path_factory.mktemp("trained") / "old"
        scheme = {"name": sharing, "shared": 1} if sharing == "layers" else sharing
        with no_pictures():
            return train_two(out, sizes=sizes, sharing=scheme, backbone=backbone or f"{TOY}:ToyBackbone")

    return run
