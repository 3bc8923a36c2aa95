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
from mtframe.data import Batch, Placement
from mtframe.errors import DataError
from mtframe.evaluation import (
    Bars,
    Curves,
    Matrix,
    Passes,
    TaskViews,
    evaluate,
    mean_relative_gain,
    write_details,
)
from mtframe.evaluation._plots import draw_detail
from mtframe.inference import load_run
from mtframe.metrics import GalleryThresholds, SizedThreshold, Thresholds
from mtframe.recipe import Recipe
from mtframe.run import Checkpoint
from mtframe.training import Trainer
from toy import ToyData, ToyMetric, toy_recipe


def test_mean_relative_gain_by_hand() -> None:
    # +10 % where more is better, and an error that falls from 0.2 to 0.15 is +25 %.
    gain = mean_relative_gain({"a": 0.55, "b": 0.15}, {"a": 0.5, "b": 0.2}, {"a": True, "b": False})
    assert gain == pytest.approx((0.10 + 0.25) / 2)


def test_a_reference_of_nothing_says_nothing_and_a_broken_score_loses_all() -> None:
    higher = {"a": True, "b": True}
    assert mean_relative_gain({"a": 0.3, "b": 0.6}, {"a": 0.0, "b": 0.5}, higher) == pytest.approx(0.1)
    assert mean_relative_gain({"a": math.nan, "b": 0.5}, {"a": 0.5, "b": 0.5}, higher) == pytest.approx(-0.5)


def toy_assembly(**data: int) -> Assembly:
    """One task on pictures of which one may be bad."""
    here = toy_recipe()["tasks"]["one"]["dataset"]
    return Assembly(Recipe.from_plain(toy_recipe({"one": {"dataset": {"name": here, **data}}})))


def test_evaluation_scores_each_image_once_and_leaves_the_model_as_it_was() -> None:
    assembly = toy_assembly(count=9, bad=4)
    model = assembly.model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = evaluate(model, assembly, ["one"], "val")["one"]
    assert result.images == 8
    assert result.skipped == ["toy/4.jpg: made to be bad"]
    assert 0 <= result.score <= 1
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # Once more: metrics forget what they have seen.
    assert evaluate(model, assembly, ["one"], "val")["one"].values == result.values


def test_a_split_of_which_nothing_can_be_read_is_no_score() -> None:
    assembly = toy_assembly(count=1, bad=0)
    with pytest.raises(DataError, match=r"tasks\.one\.dataset: none of its 1 images can be read.*\n  toy/0\.jpg: made"):
        evaluate(assembly.model(), assembly, ["one"], "val")


class ColourBoxes(nn.Module):
    """A model that finds the box of the red pixels of each image, so that views can be checked by hand."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.heads = {"one": head}
        self.mean = torch.zeros(3)
        self.shapes: list[tuple[int, int]] = []

    def forward(self, images: Mapping[str, Tensor], lenders: Mapping[str, str]) -> dict[str, Tensor]:
        assert lenders == {}
        self.shapes.append((len(images["one"]), images["one"].shape[-1]))
        return {"one": images["one"][:, 0] > 127}


class Head:
    """Says where it is red, and how far up the image's own pixels go."""

    def predict(self, outputs: Tensor, bounds: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for mask, within in zip(outputs, bounds, strict=True):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            box = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]).float()
            found.append({"boxes": torch.cat([box, within[None]])})
        return found


class MergingHead(Head):
    """Has a way of its own: the largest of each side."""

    def merge_views(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {"boxes": torch.stack([view["boxes"] for view in predictions]).amax(0)}


class AllBoxes:
    """A kind of target that keeps what all views say, brought back to the original."""

    def restored(self, views: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        return {"boxes": torch.stack([place.restored_boxes(view["boxes"]) for view, place in views])}


def red_batch() -> Batch:
    """Two images, 64 x 96; the original, 46 x 32 pixels, is half as large, and lies 4 pixels to the right."""
    images = torch.zeros(2, 3, 64, 96)
    images[:, 0, 16:32, 8:40] = 255
    return Batch(images, placements=[Placement.scaled((32, 46), (64, 96), (2.0, 2.0), (4.0, 0.0))] * 2)


def test_all_views_of_an_image_are_told_in_pixels_of_the_original() -> None:
    model: Any = ColourBoxes(Head())
    views = TaskViews(AllBoxes(), flip=True, scales=(1.0, 2.0, 0.5))  # type: ignore[arg-type]
    predictions = Passes(model, {"one": views}).predict({("one",): red_batch()})["one"]
    # Images and mirror images of a scale in one call.
    assert model.shapes == [(4, 96), (4, 192), (4, 64)]
    assert len(predictions) == 2
    for prediction in predictions:
        assert prediction["boxes"].shape == (6, 2, 4)
        expected = torch.tensor([2.0, 8, 18, 16])
        assert (prediction["boxes"][:, 0] - expected).abs().max() <= 0.75
        torch.testing.assert_close(prediction["boxes"][:2, 0], expected.expand(2, 4))
        # Bounds are those of the view: brought back, each is the whole original.
        torch.testing.assert_close(prediction["boxes"][:, 1], torch.tensor([0.0, 0, 46, 32]).expand(6, 4))


def test_a_head_may_merge_views_by_itself_and_a_single_one_is_none_to_merge() -> None:
    head = MergingHead()
    twice = TaskViews(AllBoxes(), flip=True)  # type: ignore[arg-type]
    model: Any = ColourBoxes(head)
    (one, _) = Passes(model, {"one": twice}).predict({("one",): red_batch()})["one"]
    # It is given what each view says of the original, by itself.
    assert one["boxes"].tolist() == [[[2, 8, 18, 16], [0, 0, 46, 32]]]
    once = TaskViews(AllBoxes())  # type: ignore[arg-type]
    (one, _) = Passes(model, {"one": once}).predict({("one",): red_batch()})["one"]
    assert one["boxes"].tolist() == [[[2, 8, 18, 16], [0, 0, 46, 32]]]


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
    assembly = Assembly(Recipe.from_plain(toy_recipe({"one": {"metrics": [f"{__file__}:Talkative"]}})))
    model = assembly.model()
    plain = evaluate(model, assembly, ["one"], "val")["one"]
    assert (plain.notes, plain.details) == (["Seen from afar."], [])
    detailed = evaluate(model, assembly, ["one"], "val", details=True)["one"]
    files = write_details(detailed, "one", tmp_path / "out")
    assert [file.name for file in files] == [
        "one.json",
        "one-reliability.png",
        "one-confusion.png",
        "one-per-class.png",
    ]
    content = json.loads(files[0].read_text(encoding="utf-8"))
    assert content["notes"] == ["Seen from afar."]
    assert content["details"][0]["lines"] == {"all": [[0, 1], [0.2, None]]}
    assert content["details"][1]["values"] == [[3, 1], [0, 0]]
    assert content["details"][2] == {
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
    sources = Assembly(Recipe.from_plain(recipe), infos, trained=trained).outside("one")
    assert sources[0] == "pretrained weights of timm/test_resnet"


def test_a_thousand_classes_and_formulas_in_names_are_drawn(tmp_path: Path) -> None:
    names = tuple(f"a$x_${number}" for number in range(1000))
    matrix = Matrix("confusion", "true", "predicted", names, names, torch.eye(1000).tolist())
    draw_detail(matrix, tmp_path / "matrix.png")
    draw_detail(Bars("b", "u", {"a$x_$": 1.0, "汉": 2.0}), tmp_path / "bars.png")
    draw_detail(Curves("c", "x", "y", {"$\\": ([0, 1], [0, 1]), "b": ([0, 1], [1, 0])}), tmp_path / "curves.png")
    with Image.open(tmp_path / "matrix.png") as picture:
        assert max(picture.size) < 4000


class Paired(ToyMetric):
    """Chooses a threshold of pairs."""

    primary = "paired"

    def compute(self) -> dict[str, float]:
        return {"paired": 0.5}

    def thresholds(self) -> Thresholds:
        return Thresholds("accuracy", {"accuracy": 0.25}, "9 pairs")

    def scores_at(self, threshold: float) -> dict[str, float]:
        return {"pairs@kept": threshold}


class Searched(ToyMetric):
    """Chooses thresholds of galleries."""

    def gallery_thresholds(self) -> GalleryThresholds:
        return GalleryThresholds("fpir=1e-2", {"fpir=1e-2": [SizedThreshold(5, 0.75)]}, "7 probes")

    def scores_with(self, kept: GalleryThresholds) -> dict[str, float]:
        return {"gallery@kept": kept.value(3) or 0.0}


@pytest.mark.parametrize("metrics", [["Searched"], ["Paired", "Searched"]])
def test_thresholds_of_galleries_are_kept_beside_those_of_pairs(tmp_path: Path, metrics: list[str]) -> None:
    here = Path(__file__).resolve()
    plain = toy_recipe({"one": {"metrics": [f"{here}:{name}" for name in metrics]}}, steps=1)
    Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run").fit()
    kept = Checkpoint.open(tmp_path / "run" / "checkpoints" / "best").thresholds()["one"]
    assert kept.gallery == Searched().gallery_thresholds()
    assert kept.values == ({"accuracy": 0.25} if "Paired" in metrics else {})
    result = load_run(tmp_path / "run").evaluate("one")
    assert result.values["gallery@kept"] == 0.75
    assert result.values.get("pairs@kept") == (0.25 if "Paired" in metrics else None)
    data = "9 pairs, 7 probes" if "Paired" in metrics else "7 probes"
    assert f"the run's threshold was chosen on this split ({data})" in result.notes[-1]
