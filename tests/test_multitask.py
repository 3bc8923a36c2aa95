from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtframe.assembly import Assembly
from mtframe.model import MultiTaskModel, Network
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from toy import ToyBackbone, toy_recipe


def model(colour_order: str = "RGB", mean: tuple[float, ...] = (0.1, 0.2, 0.3)) -> MultiTaskModel:
    backbone = ToyBackbone()
    return MultiTaskModel(
        Network(backbone, (("a",),)), {"a": torch.nn.Identity()}, {"a": torch.nn.Identity()},
        mean=mean, std=(0.5, 0.25, 0.125), colour_order=colour_order,
    )  # fmt: skip


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_images_are_normalised_in_the_order_of_the_backbone(order: str) -> None:
    pixels = torch.tensor([255, 51, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    channels = (1.0, 0.2, 0.0) if order == "RGB" else (0.0, 0.2, 1.0)
    expected = [(c - m) / s for c, m, s in zip(channels, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125), strict=True)]
    torch.testing.assert_close(model(order)._normalised(pixels).flatten(), torch.tensor(expected))


def test_a_checkpoint_says_how_its_weights_want_images() -> None:
    trained, other = model("BGR", (0.4, 0.5, 0.6)), model()
    other.load_state_dict(trained.state_dict())
    assert other.colour_order == "BGR"
    torch.testing.assert_close(other.mean, trained.mean)
    assert all(tensor.device.type == "cpu" for tensor in trained.state_dict().values())


def test_it_survives_the_file(tmp_path: Path) -> None:
    recipe = Recipe.from_plain(toy_recipe())
    assembly = Assembly(recipe)
    trained = assembly.model()
    trained.colour_order = "BGR"
    trained.mean += 1
    run = RunFolder(tmp_path / "run").create(recipe, assembly.infos)
    run.save_checkpoint("best", trained.state_dict(), 0)
    loaded = Assembly(recipe, run.infos()).model(restoring=True)
    run.load_weights(loaded)
    assert loaded.colour_order == "BGR"
    torch.testing.assert_close(loaded.mean, trained.mean)
