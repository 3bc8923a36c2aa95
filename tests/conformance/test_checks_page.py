"""docs/reference/checks.md lists the checks that there are, as they describe themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtframe.kinds import KINDS
from mtframe.testing._kit import CHECKS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "checks.md").read_text(encoding="utf-8")


def test_every_kind_has_checks_and_a_heading() -> None:
    assert next(iter(CHECKS)) == "every"
    assert set(CHECKS) == {"every", *KINDS}
    assert re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) == list(CHECKS)


@pytest.mark.parametrize("kind", CHECKS)
def test_checks_are_listed_in_their_words(kind: str) -> None:
    section = re.split(r"^## \w+$", PAGE, flags=re.MULTILINE)[list(CHECKS).index(kind) + 1]
    entries = [
        " ".join(entry.split()) for entry in re.findall(r"^- (.*?)(?=^- |\Z)", section, re.MULTILINE | re.DOTALL)
    ]
    assert len(entries) == len(CHECKS[kind])
    for check, entry in zip(CHECKS[kind], entries, strict=True):
        assert entry.startswith(f"**`{check.name}`**: {check.summary}")
