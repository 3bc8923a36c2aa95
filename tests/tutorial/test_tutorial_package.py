from __future__ import annotations

import subprocess
import sys


def test_presets_are_read_without_torch() -> None:
    code = "import sys, mtframe_tutorial.presets; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
