from __future__ import annotations

from mtframe.registry import resolve
from mtframe_face.presets import FaceIdentification, FaceRecognition


def test_the_presets_name_parts_that_are_there_and_of_one_kind_of_target() -> None:
    for preset in (FaceRecognition, FaceIdentification):
        named = {kind: getattr(preset, kind) for kind in ("dataset", "head", "loss")}
        parts = [resolve(kind, name).component for kind, name in named.items()]
        parts += [resolve("metric", name).component for name in preset.metrics]
        assert {part.target for part in parts} == {"identity"}
        assert resolve("transform", preset.transform).name == preset.transform
    assert resolve("target", "identity").name == "identity"
