"""What the source itself looks like: sizes, and what its types leave open.

    python tests/benchmarks/house.py [CHECKOUT ...]

Of the Python files in `mtframe` and `plugins` of each checkout, this one if none is named: how many there are, their
lines, the largest file, the longest function, how often an annotation says `Any`, calls of `getattr` and `hasattr`, and
files without a module docstring. Several checkouts stand side by side, so that a change can be told in figures. They
are parsed, never imported.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
FOLDERS = ("mtframe", "plugins")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A parsed file.

    Attributes:
        name: Its path in the checkout.
        lines: How many it has.
        tree: What is in it.
    """

    name: str
    lines: int
    tree: ast.Module


def main() -> None:
    """Prints a line a figure, with a column a checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[HERE], metavar="CHECKOUT")
    checkouts: list[Path] = parser.parse_args().checkouts
    figures = [figures_of(list(files_of(checkout))) for checkout in checkouts]
    rows = [["", *map(str, checkouts)], *([name, *(of[name] for of in figures)] for name in figures[0])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def files_of(checkout: Path) -> Iterator[SourceFile]:
    """The Python files that are counted. Ends the program if there is none: it is no checkout."""
    paths = sorted(path for folder in FOLDERS for path in (checkout / folder).rglob("*.py"))
    if not paths:
        raise SystemExit(f"{checkout}: no Python files in {' and '.join(FOLDERS)}; expected a checkout of mtframe")
    for path in paths:
        text = path.read_text(encoding="utf-8")
        yield SourceFile(path.relative_to(checkout).as_posix(), len(text.splitlines()), ast.parse(text))


def figures_of(files: list[SourceFile]) -> dict[str, str]:
    """Each figure by its name, as it is printed."""
    nodes = [(file, node) for file in files for node in ast.walk(file.tree)]
    functions = [(file, node) for file, node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    place, longest = max(functions, key=lambda found: length(found[1]))
    largest = max(files, key=lambda file: file.lines)
    calls = [node.func.id for _, node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    bare = [file for file in files if ast.get_docstring(file.tree) is None]
    return {
        "files": str(len(files)),
        "lines": str(sum(file.lines for file in files)),
        "largest file": f"{largest.lines} {largest.name}",
        "longest function": f"{length(longest)} {longest.name} in {place.name}",
        "Any in annotations": str(sum(anys(annotation) for _, node in nodes for annotation in annotations_of(node))),
        "getattr and hasattr": str(calls.count("getattr") + calls.count("hasattr")),
        "without docstring": str(len(bare)),
    }


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring with it, its decorators not."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def annotations_of(node: ast.AST) -> Iterator[ast.expr]:
    """The annotation that a parameter, a variable or a function's result has."""
    if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        yield node.annotation
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
        yield node.returns


def anys(annotation: ast.expr) -> int:
    """How often an annotation says `Any`, alone or within another type."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(annotation))


if __name__ == "__main__":
    main()
