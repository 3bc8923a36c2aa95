from __future__ import annotations

import subprocess
import sys

import pytest

import mtframe_tutorial


def test_presets_are_read_without_torch() -> None:
    code = "import sys, mtframe_tutorial.tasks; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    for name in mtframe_tutorial.__all__:
        assert getattr(mtframe_tutorial, name).__name__ == name
    assert dir(mtframe_tutorial) == mtframe_tutorial.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mtframe_tutorial.Nothing  # noqa: B018
