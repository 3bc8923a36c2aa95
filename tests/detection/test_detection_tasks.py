from __future__ import annotations

import subprocess
import sys


def test_the_preset_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mtframe_detection.presets import ObjectDetection; print(ObjectDetection.size); "
        "assert not {'torch', 'torchvision', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "320"), done.stderr
