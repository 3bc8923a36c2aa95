from __future__ import annotations

from mtframe.recipe import assemble_recipe


def test_the_preset_names_parts_that_fit() -> None:
    recipe = assemble_recipe("timm/test_resnet.r160_in1k", ["regions=semantic-segmentation:somewhere"])
    speaking = {
        where: part.resolved.component.target
        for where, part in recipe.check().parts.items()
        if hasattr(part.resolved.component, "target")
    }
    slots = ("dataset", "head", "loss", "metrics.0")
    assert speaking == {f"tasks.regions.{slot}": "mask" for slot in slots}
