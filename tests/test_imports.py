"""What is not imported: listing and helping stay immediate, and plugins stay out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "torchvision", "timm", "numpy", "matplotlib", "PIL", "simplejpeg", "safetensors"}

RUN = """
import sys
sys.argv = ["mtframe", *{arguments!r}]
from mtframe.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("imported:", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


PRINT = "print('imported:', *{name.partition('.')[0] for name in sys.modules})"


def imported_by(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    return set(done.stdout.splitlines()[-1].removeprefix("imported:").split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins", "list"],
        ["plugins", "list", "head"],
        ["data", "--help"],
        ["train", "--help"],
        ["demo", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_import_neither_torch_nor_a_plugin(arguments: list[str]) -> None:
    imported = imported_by(RUN.format(arguments=arguments))
    assert "mtframe" in imported
    assert not imported & HEAVY
    assert not [name for name in imported if name.startswith("mtframe_")]


def test_the_floor_imports_no_torch() -> None:
    code = (
        "import sys, mtframe.kinds, mtframe.registry, mtframe.options, mtframe.recipe, mtframe.hooks\n"
        "from mtframe.recipe import assemble_recipe\n"
        f"assemble_recipe('timm/resnet18', ['a=face-recognition:x', 'b=object-detection:y'])\n{PRINT}"
    )
    assert not imported_by(code) & HEAVY


def modules_of_plugins(name: str) -> list[str]:
    """A module of this name in every plugin that has one."""
    return sorted(f"{path.parent.name}.{name}" for path in (ROOT / "plugins").glob(f"*/{name}.py"))


@pytest.mark.parametrize("module", modules_of_plugins("presets"))
def test_presets_are_read_without_anything_heavy(module: str) -> None:
    assert not imported_by(f"import sys, {module}\n{PRINT}") & HEAVY


@pytest.mark.parametrize("module", modules_of_plugins("synthesis"))
def test_data_is_rendered_without_torch(module: str) -> None:
    imported = imported_by(f"import sys, {module}\n{PRINT}")
    assert "numpy" in imported
    assert not imported & {"torch", "torchvision", "timm"}


def test_importing_prints_and_warns_nothing() -> None:
    packages = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file())
    assert "mtframe_observers" in packages
    modules = ", ".join(["mtframe.cli", "mtframe.training", "mtframe.inference", "mtframe.testing", *packages])
    done = subprocess.run(
        [sys.executable, "-c", f"import {modules}"], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == ""
    assert done.stderr == ""
