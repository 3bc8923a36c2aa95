"""What `mtframe demo` promises, on data and from weights that it was not tuned on too. Minutes: `pytest -m slow -s`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import mtframe


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_recognises_unseen_people_and_finds_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in (("lfw", "faces"), ("coco", "objects")):
        assert mtframe("data", "synthesize", name, f"data/demo/{folder}", f"seed={seed}").code == 0
    result = mtframe("demo", f"train.seed={seed}")
    print(result.out)
    assert (result.code, result.err) == (0, "")
    last = json.loads(Path("runs/demo/metrics.json").read_text(encoding="utf-8"))["evaluations"][-1]["tasks"]
    assert last["faces"]["accuracy"] >= 0.95
    assert last["objects"]["AP50"] >= 0.80
