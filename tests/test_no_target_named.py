"""No kind of target is known to the framework by name: what becomes of labels is for components of kind `target`."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = set(PROJECT["entry-points"]["mtframe.target"])

# What `mtframe plugins new` writes are plugins.
MODULES = [path for path in sorted((ROOT / "mtframe").rglob("*.py")) if "templates" not in path.parent.parts]


def named(source: str) -> list[tuple[int, str]]:
    """Text in code that is the name of a kind of target, with its line."""
    return [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in NAMES
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_name_of_a_kind_of_target_stands_in_a_module(path: Path) -> None:
    assert named(path.read_text()) == []


def test_a_name_would_be_found() -> None:
    assert len(MODULES) > 100
    assert {"identity", "boxes", "label"} <= NAMES
    assert named('def f(target="boxes"):\n    return target == "label"  # identity\n') == [(1, "boxes"), (2, "label")]
