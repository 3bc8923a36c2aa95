"""`train.steps=0`: a run of weights that were trained elsewhere, without training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_tasks import done, outputs, same

from mtframe.assembly import Assembly
from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.inference import load_run
from mtframe.kinds import FeatureSpec
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe.training._class_rows import class_axes
from mtframe.training._start import start_model
from mtframe.yaml import dump_yaml
from toy import ToyHead, ToyLoss, toy_recipe

HERE = str(Path(__file__).resolve())


class ForeignHead(ToyHead):
    """Reads the weights that somebody else has trained."""

    def __init__(
        self, features: Sequence[FeatureSpec], info: DataInfo, restoring: bool, *, weights: Path | None = None
    ) -> None:
        super().__init__(features, info)
        if weights is not None and not restoring:
            self.load_state_dict(load_file(weights))


class ForeignLoss(ToyLoss):
    """Compares by weights that somebody else has trained."""

    def __init__(self, restoring: bool, *, weights: Path | None = None) -> None:
        super().__init__()
        self.own = torch.nn.Parameter(torch.zeros(2, 8))
        if weights is not None and not restoring:
            self.load_state_dict({"own": load_file(weights)["linear.weight"]})


def recipe_of(weights: Path, **train: Any) -> dict[str, Any]:
    head = {"name": f"{HERE}:ForeignHead", "weights": str(weights)}
    plain = toy_recipe({"one": {"head": head}, "two": {}}, **{"steps": 0, **train})
    plain["hooks"] = ["csv-logger"]
    return plain


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "foreign.safetensors"
    save_file({"linear.weight": torch.arange(16.0).view(2, 8), "linear.bias": torch.tensor([1.0, -1.0])}, file)
    return file


def test_given_weights_become_a_run_that_needs_them_no_more(weights: Path, tmp_path: Path) -> None:
    given = load_file(weights)
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe_of(weights)), encoding="utf-8")
    run = tmp_path / "run"
    said = done("train", tmp_path / "recipe.yaml", "--out", run)
    assert "never" not in said.out + said.err
    assert {"last", "best", "best_one", "best_two"} <= {file.name for file in (run / "checkpoints").iterdir()}
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["trained"] is False
    assert "nothing is trained" in (run / "log.txt").read_text(encoding="utf-8")
    weights.unlink()
    head = load_run(run).model.heads["one"].state_dict()
    assert all(torch.equal(head[name], given[name]) for name in given)
    scores = json.loads(done("evaluate", run, "--json").out)
    evaluated = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["evaluations"]
    assert [(each["step"], each["tasks"]) for each in evaluated] == [(0, scores)]
    assert same(outputs(run, {"one": 32, "two": 32}), outputs(run, {"one": 32, "two": 32}, "last"))


def test_it_can_be_trained_from_there(weights: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(Assembly(Recipe.from_plain(recipe_of(weights))), run).fit()
    with pytest.raises(RecipeError, match=r"already trained to its end, step 0 of 0\. .* train\.steps=N"):
        Trainer.resume(run)
    Trainer.resume(run, overrides=["train.steps=3"]).fit()
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["trained"] is True
    Trainer(Assembly(Recipe.from_plain(recipe_of(weights, steps=3))), tmp_path / "whole").fit()
    ours, theirs = (load_file(folder / "checkpoints/last/weights.safetensors") for folder in (run, tmp_path / "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_head_reads_its_file_where_the_weights_to_start_from_have_nothing_for_it(
    weights: Path, tmp_path: Path
) -> None:
    plain = toy_recipe({"two": {}}, steps=0)
    Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "old").fit()
    old = RunFolder.open(tmp_path / "old").weights_file()[1]
    model, _ = start_model(Assembly(Recipe.from_plain(recipe_of(weights, start=str(old)))), restoring=False)
    assert torch.equal(model.heads["one"].linear.weight, load_file(weights)["linear.weight"])
    assert torch.equal(model.heads["two"].linear.weight, load_file(old)["heads.two.linear.weight"])


def test_a_loss_reads_its_file_only_where_no_run_has_its_weights(weights: Path, tmp_path: Path) -> None:
    loss = {"name": f"{HERE}:ForeignLoss", "weights": str(weights)}
    given = load_file(weights)["linear.weight"]
    recipe = Recipe.from_plain(toy_recipe({"one": {"loss": loss}, "two": {}}, steps=0))
    Trainer(Assembly(recipe), tmp_path / "run").fit()
    # A run that has learned nothing of it leaves it to its file.
    Trainer(Assembly(Recipe.from_plain(toy_recipe({"two": {}}, steps=0))), tmp_path / "old").fit()
    plain = toy_recipe({"one": {"loss": loss}, "two": {}}, steps=0, start=str(tmp_path / "old"))
    model, _ = start_model(Assembly(Recipe.from_plain(plain)), restoring=False)
    assert torch.equal(model.losses["one"].own, given)
    weights.unlink()
    assert torch.equal(load_run(tmp_path / "run").model.losses["one"].own, given)
    plain = toy_recipe({"one": {"loss": loss}, "two": {}}, steps=0, start=str(tmp_path / "run"))
    model, _ = start_model(Assembly(Recipe.from_plain(plain)), restoring=False)
    assert torch.equal(model.losses["one"].own, given)


def test_rows_of_classes_are_found_without_a_file(weights: Path, tmp_path: Path) -> None:
    Trainer(Assembly(Recipe.from_plain(recipe_of(weights))), tmp_path / "run").fit()
    weights.unlink()
    assembly = Assembly(Recipe.from_plain(recipe_of(weights)))
    axes = class_axes(assembly.model(restoring=True), assembly, "one")
    assert axes == {"heads.one.linear.weight": 0, "heads.one.linear.bias": 0}


def test_a_negative_length_is_told(weights: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.steps: expected .*greater than or equal to 0"):
        Recipe.from_plain(recipe_of(weights, steps=-1))
