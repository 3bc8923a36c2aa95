"""The commands of docs/task-life.md, in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from toy_tasks import done

PAGE = Path(__file__).resolve().parents[2] / "docs" / "task-life.md"

# What makes them quick, and needs no download.
SMALL = {
    "timm/resnet18": "timm/test_resnet.r160_in1k backbone.pretrained=false train.steps=2 train.workers=0",
    "train.epochs=5": "train.steps=2",
    "train=400 val=120": "train=20 val=10",
    "train=300 val=60": "train=8 val=4",
    "people=40 images=6": "people=4 images=3 test_people=4 pairs=10",
    "scenes=scene-recognition:data/scenes": "scenes=scene-recognition:data/scenes tasks.scenes.size=64",
}


@pytest.mark.slow
def test_the_page_runs(here: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for line in re.findall(r"^mtframe [a-z].*$", text, flags=re.MULTILINE):
        for long, short in SMALL.items():
            line = line.replace(long, short)
        done(*shlex.split(line)[1:])
    assert {path.name for path in (here / "runs").iterdir()} == set(re.findall(r"runs/([a-z-]+)", text)) - {
        "three",
        "one",
    }
