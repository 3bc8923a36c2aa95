from __future__ import annotations

import subprocess
import sys


def test_presets_are_read_without_torch() -> None:
    code = "import sys, mtframe_face.presets; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_the_presets_name_parts_that_are_there_and_of_one_kind_of_target() -> None:
    from mtframe.registry import resolve
    from mtframe_face.presets import FaceIdentification, FaceRecognition

    for preset in (FaceRecognition, FaceIdentification):
        named = {kind: getattr(preset, kind) for kind in ("dataset", "head", "loss")}
        parts = [resolve(kind, name).component for kind, name in named.items()]
        parts += [resolve("metric", name).component for name in preset.metrics]
        assert {part.target for part in parts} == {"identity"}
        assert resolve("transform", preset.transform).name == preset.transform
    assert resolve("target", "identity").name == "identity"
