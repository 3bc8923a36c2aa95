from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from toy_tasks import TOY, Trained, train_two


@pytest.fixture(autouse=True, scope="package")
def _no_pictures() -> Iterator[None]:
    """Half of a training of this size is drawing its losses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtframe_observers._csv.plot_losses", lambda *arguments: None)
        yield


@pytest.fixture(scope="package")
def trained(_no_pictures: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Runs that are only read."""

    @cache
    def run(sizes: tuple[int, int] = (32, 32), sharing: str = "network", backbone: str = "") -> Path:
        out = tmp_path_factory.mktemp("trained") / "old"
        scheme = {"name": sharing, "shared": 1} if sharing == "layers" else sharing
        return train_two(out, sizes=sizes, sharing=scheme, backbone=backbone or f"{TOY}:ToyBackbone")

    return run
