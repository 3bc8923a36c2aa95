from __future__ import annotations

import subprocess
import sys

import pytest

import mtframe_detection


def test_the_preset_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mtframe_detection.tasks import ObjectDetection; print(ObjectDetection.size); "
        "assert not {'torch', 'torchvision', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "320"), done.stderr


def test_every_public_name_exists() -> None:
    for name in mtframe_detection.__all__:
        component = getattr(mtframe_detection, name)
        assert component.target == "boxes"
        assert component.__doc__
    with pytest.raises(AttributeError, match="no attribute 'Yolov9'"):
        _ = mtframe_detection.Yolov9
