from __future__ import annotations

import subprocess
import sys

from mtframe.recipe import assemble_recipe


def test_presets_and_scenes_are_made_without_torch() -> None:
    code = (
        "import sys, mtframe_segmentation.presets, mtframe_segmentation.synthesis\n"
        "print({'torch', 'torchvision'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_the_preset_names_parts_that_fit() -> None:
    recipe = assemble_recipe("timm/test_resnet.r160_in1k", ["regions=semantic-segmentation:somewhere"])
    speaking = {
        where: part.resolved.component.target
        for where, part in recipe.check().parts.items()
        if hasattr(part.resolved.component, "target")
    }
    slots = ("dataset", "head", "loss", "metrics.0")
    assert speaking == {f"tasks.regions.{slot}": "mask" for slot in slots}
