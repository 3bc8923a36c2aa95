from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mtframe.assembly import Assembly
from mtframe.data import Batch, Geometry
from mtframe.errors import RecipeError
from mtframe.evaluation import (
    Bars,
    Curves,
    Matrix,
    evaluate_task,
    mean_relative_gain,
    predict_batch,
    write_details,
)
from mtframe.evaluation._plots import draw_detail
from mtframe.kinds import FeatureSpec
from mtframe.recipe import Recipe
from toy import ToyData, ToyMetric, ToyTransform, toy_recipe


def test_mean_relative_gain_by_hand() -> None:
    # +10 % where more is better, and an error that falls from 0.2 to 0.15 is +25 %.
    gain = mean_relative_gain({"a": 0.55, "b": 0.15}, {"a": 0.5, "b": 0.2}, {"a": True, "b": False})
    assert gain == pytest.approx((0.10 + 0.25) / 2)


def test_a_reference_of_nothing_says_nothing_and_a_broken_score_loses_all() -> None:
    higher = {"a": True, "b": True}
    assert mean_relative_gain({"a": 0.3, "b": 0.6}, {"a": 0.0, "b": 0.5}, higher) == pytest.approx(0.1)
    assert mean_relative_gain({"a": math.nan, "b": 0.5}, {"a": 0.5, "b": 0.5}, higher) == pytest.approx(-0.5)


def test_evaluation_scores_each_image_once_and_leaves_the_model_as_it_was() -> None:
    model = Assembly(Recipe.from_plain(toy_recipe())).model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    dataset = ToyData("val", count=9, bad=4)
    result = evaluate_task(model, "one", dataset, ToyTransform(32, False), [ToyMetric()], batch_size=4)
    assert result.images == 8
    assert result.skipped == ["toy/4.jpg: made to be bad"]
    assert 0 <= result.score <= 1
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class ColourBoxes(nn.Module):
    """A model that finds the box of the red pixels of each image, so that views can be checked by hand."""

    target = "boxes"

    def __init__(self) -> None:
        super().__init__()
        self.heads = {"one": self}
        self.widths: list[int] = []

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.widths.append(images["one"].shape[-1])
        return {"one": images["one"][:, 0] > 127}

    def predict(self, outputs: Tensor, geometry: Geometry) -> list[dict[str, Tensor]]:
        found = []
        for image, mask in enumerate(outputs):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            box = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            found.append({"boxes": geometry.to_original(box[None].float(), image)})
        return found

    def merge_views(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {"boxes": torch.cat([view["boxes"] for view in predictions])}


def test_all_views_of_an_image_are_told_in_pixels_of_the_original() -> None:
    images = torch.zeros(2, 3, 64, 96)
    images[:, 0, 16:32, 8:40] = 255
    # The original is half as large, and lies 4 pixels to the right.
    geometry = Geometry(torch.full((2, 2), 2.0), torch.tensor([[4.0, 0.0]] * 2), torch.tensor([[32, 46]] * 2))
    model: Any = ColourBoxes()
    batch = Batch(images, {}, geometry)
    predictions = predict_batch(model, "one", batch, flip=True, scales=(1.0, 2.0, 0.5), precision="fp32")
    assert model.widths == [96, 96, 192, 192, 64, 64]
    assert len(predictions) == 2
    for prediction in predictions:
        expected = torch.tensor([2.0, 8, 18, 16])
        assert (prediction["boxes"] - expected).abs().max() <= 0.75
        torch.testing.assert_close(prediction["boxes"][:2], expected.expand(2, 4))


def test_several_views_need_a_head_that_can_merge_them() -> None:
    with pytest.raises(RecipeError, match=r"tasks.one: head '.*:Blind' cannot merge several views"):
        Assembly(Recipe.from_plain(toy_recipe({"one": {"flip_test": True, "head": f"{__file__}:Blind"}}))).model()


class Blind(nn.Module):
    """A head without `merge_views`."""

    target = "label"

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        super().__init__()

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {}

    def predict(self, outputs: Mapping[str, Tensor], geometry: Geometry) -> list[dict[str, Tensor]]:
        return []


class Talkative(ToyMetric):
    """Has more to tell than a number."""

    notes = ("Seen from afar.",)

    def details(self) -> list[Any]:
        return [
            Curves("reliability", "confidence", "accuracy", {"all": ([0, 1], [0.2, math.nan])}),
            Matrix("confusion", "true", "predicted", ("a", "b"), ("a", "b"), [[3, 1], [0, 0]]),
            Bars("per-class", "accuracy", {"a": 0.5, "b": math.nan}),
        ]


def test_details_become_json_and_pictures(tmp_path: Path) -> None:
    model = Assembly(Recipe.from_plain(toy_recipe())).model()
    parts = (model, "one", ToyData("val", count=4), ToyTransform(32, False), [Talkative()])
    plain = evaluate_task(*parts, batch_size=4)
    assert (plain.notes, plain.details) == (["Seen from afar."], [])
    files = write_details(evaluate_task(*parts, batch_size=4, details=True), "one", tmp_path / "out")
    assert [file.name for file in files] == [
        "one.json",
        "one-reliability.png",
        "one-confusion.png",
        "one-per-class.png",
    ]
    told = json.loads(files[0].read_text())
    assert told["notes"] == ["Seen from afar."]
    assert told["details"][0]["lines"] == {"all": [[0, 1], [0.2, None]]}
    assert told["details"][1]["values"] == [[3, 1], [0, 0]]
    assert told["details"][2] == {
        "kind": "bars",
        "name": "per-class",
        "unit": "accuracy",
        "values": {"a": 0.5, "b": None},
    }
    for file in files[1:]:
        with Image.open(file) as picture:
            assert min(picture.size) > 200


def test_the_metric_is_told_what_else_the_model_has_learned_from() -> None:
    recipe = toy_recipe()
    recipe["backbone"] = {"name": "timm/test_resnet", "pretrained": True}
    infos = {task: ToyData("train").info for task in recipe["tasks"]}
    here = recipe["tasks"]["one"]["dataset"]
    assert Assembly(Recipe.from_plain(recipe), infos).outside("one") == (
        "pretrained weights of timm/test_resnet",
        f"task two ({here})",
    )
    recipe["backbone"]["pretrained"] = False
    del recipe["tasks"]["two"]
    assert Assembly(Recipe.from_plain(recipe), infos).outside("one") == ()


def test_what_a_model_has_learned_from_is_the_trained_recipes_and_no_overrides() -> None:
    recipe = toy_recipe()
    recipe["backbone"] = {"name": "timm/test_resnet", "pretrained": True}
    trained = Recipe.from_plain(recipe)
    recipe["backbone"] = {"name": "timm/test_resnet", "pretrained": False}
    infos = {task: ToyData("train").info for task in recipe["tasks"]}
    told = Assembly(Recipe.from_plain(recipe), infos, trained=trained).outside("one")
    assert told[0] == "pretrained weights of timm/test_resnet"


def test_a_thousand_classes_and_formulas_in_names_are_drawn(tmp_path: Path) -> None:
    names = tuple(f"a$x_${number}" for number in range(1000))
    matrix = Matrix("confusion", "true", "predicted", names, names, torch.eye(1000).tolist())
    draw_detail(matrix, tmp_path / "matrix.png")
    draw_detail(Bars("b", "u", {"a$x_$": 1.0, "汉": 2.0}), tmp_path / "bars.png")
    draw_detail(Curves("c", "x", "y", {"$\\": ([0, 1], [0, 1]), "b": ([0, 1], [1, 0])}), tmp_path / "curves.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert max(picture.size) < 4000


def test_points_go_back_to_where_they_were_in_the_original() -> None:
    # Half the size, moved by (3, 5), and mirrored in 40 pixels.
    geometry = Geometry(torch.tensor([[0.5, 0.5], [-0.5, 0.5]]), torch.tensor([[3.0, 5.0], [40.0, 5.0]]),
                        torch.tensor([[50, 60], [50, 60]]))  # fmt: skip
    original = torch.tensor([[10.0, 20.0], [-4.0, 70.0]])
    for image in (0, 1):
        seen = original * geometry.scale[image] + geometry.offset[image]
        assert torch.allclose(geometry.points_to_original(seen, image), original)
