from __future__ import annotations

import pytest

from mtframe.recipe import assemble_recipe

PRESETS = {
    "image-classification": ("label", {}),
    "scene-recognition": ("label", {}),
    "multi-label-classification": ("labels", {"labels": ["a"]}),
    "regression": ("value", {"values": ["a"]}),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_name_parts_that_fit(preset: str) -> None:
    target, options = PRESETS[preset]
    overrides = [f"tasks.task.dataset.{name}={value}" for name, value in options.items()]
    recipe = assemble_recipe("timm/test_resnet.r160_in1k", [f"task={preset}:somewhere"], overrides)
    checked = recipe.check()
    speaking = [where for where in checked.parts if where.startswith("tasks.") and not where.endswith(".transform")]
    assert len(speaking) == 4
    for where in speaking:
        spoken = checked.parts[where].resolved.component.target
        assert target in (spoken if isinstance(spoken, tuple) else (spoken,)), where
