"""The recipes for fine-tuning name what is there: parts of the model, options, files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtframe.assembly import Assembly
from mtframe.recipe import load_recipe
from mtframe.training._groups import settings_of

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"


def test_the_backbone_is_frozen_first_and_its_rate_falls_towards_the_input(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its paths are relative to the checkout.
    monkeypatch.chdir(RECIPES.parents[1])
    recipe = load_recipe(RECIPES / "lfw-finetune.yaml")
    model = Assembly(recipe.check()).model(restoring=True)
    settings = settings_of(model, recipe.train)
    trunk = [setting for name, setting in settings.items() if name.startswith("sharing.")]
    assert {setting.frozen_steps for setting in trunk} == {80}
    # 17 layers: half the rate of the heads, times 0.9 for each layer.
    assert max(setting.lr_scale for setting in trunk) == pytest.approx(0.5 * 0.9)
    assert min(setting.lr_scale for setting in trunk) == pytest.approx(0.5 * 0.9**17)
    heads = [setting for name, setting in settings.items() if not name.startswith("sharing.")]
    assert {(setting.lr_scale, setting.frozen_steps) for setting in heads} == {(1.0, 0)}


@pytest.mark.parametrize("name", ["coco-people", "lfw-coco-finetune"])
def test_the_first_three_stages_are_frozen(name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parents[1])
    recipe = load_recipe(RECIPES / f"{name}.yaml", ["tasks.people.dataset.root=../shared/data/coco"])
    model = Assembly(recipe.check()).model(restoring=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    # timm's stages end with blocks.0 (stride 2), blocks.1, blocks.2, blocks.4 and blocks.6.
    blocks = {name.split("blocks.")[1][0] for name in trained if "blocks." in name}
    assert blocks == {"3", "4", "5", "6"}
