from __future__ import annotations

import os
import signal

# Before torch is imported: workers of pytest-xdist, with a thread for each core, would wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

from small import Small

# What is printed, its width and its colours follow these.
OF_THE_USER = {
    *("COLUMNS", "LINES", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PY_COLORS"),
    *("PYTHONWARNINGS", "PYTHONWARNDEFAULTENCODING"),
}
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real LFW and COCO files that lie beside the project on some machines, or a skip that says so."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA} (every capability is also tested without it)")
    return SHARED_DATA


@pytest.fixture(autouse=True, scope="session")
def _signals_of_a_terminal() -> None:
    """A suite in the background inherits an ignored SIGINT, one under nohup SIGHUP; what it starts would do so too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        # No default either: a terminal that is closed still does not end the suite.
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.fixture(autouse=True, scope="session")
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a user has set changes no outcome, and what the tests remember stays out of the user's own folders."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("MTFRAME_") or name in OF_THE_USER or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("MTFRAME_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MTFRAME_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Written once, to be read only: copy what a test changes."""
    from mtframe_detection.coco import Coco
    from mtframe_face.lfw import LFW

    root = tmp_path_factory.mktemp("small")
    LFW.synthesize(root / "faces", people=3, images=3, test_people=4, pairs=10, size=64, workers=1)
    Coco.synthesize(root / "objects", train=4, val=3, size=64, workers=1)
    return Small(root / "faces", root / "objects")


@pytest.fixture(scope="session")
def small_run(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on it for two steps, to be read only."""
    from command import mtframe

    path = tmp_path_factory.mktemp("runs") / "small"
    result = mtframe("train", *small.parts, "--out", path)
    assert (result.code, result.err) == (0, ""), result
    (path / "said.txt").write_text(result.out, encoding="utf-8")
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; what a call leaves in it is what it leaves behind."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
