from __future__ import annotations

import subprocess
import sys

import pytest

import mtframe_classification
from mtframe.recipe import assemble_recipe

PRESETS = {
    "image-classification": ("label", {}),
    "scene-recognition": ("label", {}),
    "multi-label-classification": ("labels", {"labels": ["a"]}),
    "regression": ("value", {"values": ["a"]}),
}


def test_presets_are_read_without_torch() -> None:
    code = "import sys, mtframe_classification.tasks; print({'torch', 'numpy', 'torchvision'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    for name in mtframe_classification.__all__:
        component = getattr(mtframe_classification, name)
        assert component.__name__ == name
        assert set(component.target if isinstance(component.target, tuple) else (component.target,)) <= {
            "label", "labels", "value",
        }  # fmt: skip
    assert dir(mtframe_classification) == mtframe_classification.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mtframe_classification.Nothing  # noqa: B018


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_parts_that_fit(preset: str) -> None:
    target, options = PRESETS[preset]
    overrides = [f"tasks.task.dataset.{name}={value}" for name, value in options.items()]
    recipe = assemble_recipe("timm/test_resnet.r160_in1k", [f"task={preset}:somewhere"], overrides)
    found = recipe.check()
    for where, part in found.items():
        if where.startswith("tasks."):
            spoken = part.component.target
            assert target in (spoken if isinstance(spoken, tuple) else (spoken,)), where
