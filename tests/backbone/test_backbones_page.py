"""docs/backbones.md is what the sweep wrote, of models that exist, and as wide as it is meant to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm

from mtframe.registry import resolve
from mtframe_torchvision.backbone import TorchvisionBackbone

ROOT = Path(__file__).resolve().parents[2]
SWEEP = "tests/benchmarks/backbone_sweep.py"
PAGE = ROOT / "docs" / "backbones.md"
ROW = re.compile(r"^\| `(timm|torchvision)/(\w+)` \| (\w+) \| [\d.]+ M \| (\d+) \| ([\d, ]+) \| \d+ \|$", re.MULTILINE)


def test_sixty_models_of_thirty_families_of_timm_work_and_a_dozen_of_torchvision() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    of_timm = [(member, family) for library, member, family, *_ in rows if library == "timm"]
    of_torchvision = [member for library, member, *_ in rows if library == "torchvision"]
    assert len(of_timm) >= 60
    assert len({family for _, family in of_timm}) >= 30
    assert len(of_torchvision) >= 12
    assert all(timm.is_model(member) for member, _ in of_timm)
    assert set(of_torchvision) <= set(TorchvisionBackbone.members("*"))


def test_every_model_without_a_row_has_a_reason() -> None:
    text = PAGE.read_text(encoding="utf-8")
    worked, tried = map(int, re.search(r"(\d+) of (\d+) models", text).groups())  # type: ignore[union-attr]
    assert len(ROW.findall(text)) == worked
    reasons = re.findall(r"^- `(?:timm|torchvision)/\w+`: (.+)$", text, re.MULTILINE)
    assert len(reasons) == tried - worked
    assert all(len(reason) > 10 for reason in reasons)


def test_the_page_names_the_command_that_writes_it() -> None:
    command = f"python {SWEEP} --out docs/backbones.md"
    assert f"Written by `{command}`; do not edit." in " ".join(PAGE.read_text(encoding="utf-8").split())
    assert command in (ROOT / SWEEP).read_text(encoding="utf-8").split('"""')[1]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("no such thing (a|b)", "no such thing (a/b)"),
        ("/tmp/abc/run/last cannot\n  be written", "last cannot be written"),
        (
            "it failed (Some tensors share memory: [{'a', 'b'}]. Save it otherwise)",
            "it failed (Some tensors share memory ...)",
        ),
        ("One sentence (in it) ends. " + "Another (goes on " * 20, "One sentence (in it) ends. ..."),
        ("It failed (one; " + "two " * 100 + ")", "It failed (one; ...)"),
        ("word (" + "x" * 232 + " yyyyyyyy", "word (" + "x" * 232 + " ...)"),
    ],
)
def test_a_reason_is_cut_between_sentences_and_closes_its_brackets(message: str, reason: str) -> None:
    assert resolve("metric", f"{ROOT / SWEEP}:one_line").component(RuntimeError(message)) == reason
