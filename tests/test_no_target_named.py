"""No kind of target is known to the framework by name: what becomes of labels is for components of kind `target`."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
    assert named(path.read_text(encoding="utf-8")) == []


# Kinds whose names are words of the framework's own, as the labels of a data set and the values of options.
PLAIN = {"label", "labels", "value"}

# How help texts would speak of the others: what is said of boxes does not hold for masks.
WORDS = re.compile(r"\b(?:box|boxes|masks?|identity|identities)\b", re.IGNORECASE)

COMMANDS = [path for path in MODULES if path.parent.name == "cli"]


def helped(source: str) -> list[tuple[int, str]]:
    """Words in help texts that are for one kind of target: of options, and docstrings of commands, with their line."""
    tree = ast.parse(source)
    shown = [
        (node.value.lineno, ast.literal_eval(node.value))
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant)
    ]
    shown += [
        (node.lineno, ast.get_docstring(node) or "")
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    return [(line, word) for line, text in shown for word in WORDS.findall(str(text))]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_help_speaks_of_no_kind_of_target(path: Path) -> None:
    assert helped(path.read_text(encoding="utf-8")) == []


def test_help_that_does_would_be_found() -> None:
    assert len(COMMANDS) > 15
    assert all(WORDS.search(name) for name in NAMES - PLAIN)
    source = (
        'def run(least: Annotated[float, Option(help=\'Of a box.\')]):\n    """Draws Masks."""\n'
        'def _own():\n    """Draws a box."""\n'
    )
    assert helped(source) == [(1, "box"), (1, "Masks")]


def test_a_name_would_be_found() -> None:
    assert len(MODULES) > 100
    assert {"identity", "boxes", "label"} <= NAMES
    assert named('def f(target="boxes"):\n    return target == "label"  # identity\n') == [(1, "boxes"), (2, "label")]
