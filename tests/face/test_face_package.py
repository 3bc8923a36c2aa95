from __future__ import annotations

import subprocess
import sys

import pytest

import mtframe_face


def test_presets_are_read_without_torch() -> None:
    code = "import sys, mtframe_face.tasks; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    for name in mtframe_face.__all__:
        assert getattr(mtframe_face, name).__name__ == name
    assert dir(mtframe_face) == mtframe_face.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mtframe_face.Nothing  # noqa: B018


def test_the_preset_names_parts_of_one_kind_of_target() -> None:
    from mtframe_face.tasks import FaceRecognition

    assert FaceRecognition.loss in ("cosface", "arcface")
    parts = (
        "LFW",
        "FaceCrop",
        "EmbeddingHead",
        "CosFaceLoss",
        "ArcFaceLoss",
        "SoftmaxLoss",
        "FaceVerification",
    )
    assert {getattr(mtframe_face, part).target for part in parts} == {"identity"}
