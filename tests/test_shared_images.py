"""Tasks that use another task's images: one pass, labels found by id, what is not known masked."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtframe.assembly import Assembly, observe
from mtframe.balance import Sum
from mtframe.data import DataInfo, MixedBatches, WithTargetsOf
from mtframe.errors import BadImageError, DataError, RecipeError, TrainingError
from mtframe.evaluation import evaluate
from mtframe.hooks import Hooks, hookimpl
from mtframe.recipe import Recipe, load_recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer, forward_backward
from toy import ToyData, ToyTransform, toy_recipe

HERE = str(Path(__file__).resolve())


class Parity(ToyData):
    """Says of the toy's images whether their number is even; of every third it does not know."""

    def ids(self) -> list[str]:
        return [f"toy/{number}.jpg" for number in range(self.count)]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        number = int(id.removeprefix("toy/").removesuffix(".jpg"))
        return {"label": torch.tensor(-1 if number % 3 == 0 else number % 2)}


class Numbers(Parity):
    """Numbers of the toy's images."""

    target = "value"

    def __init__(self, split: str, *, count: int = 20) -> None:
        super().__init__(split, count=count)
        self.info = DataInfo("value", ("number",))

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"value": torch.zeros(1)}


class Known(nn.Module):
    """Cross-entropy of those that are known."""

    target = "label"

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        known = targets["label"] >= 0
        loss = nn.functional.cross_entropy(
            outputs["logits"].float(), targets["label"], ignore_index=-1, reduction="sum"
        )
        return {"cross_entropy": loss / known.sum().clamp(min=1)}


class Mixing(ToyTransform):
    """Claims to make one image of several."""

    mixes = True


def recipe(**change: Any) -> dict[str, Any]:
    """Two tasks, the second on the images of the first."""
    plain = toy_recipe({"one": {}, "two": {"images": "one", "dataset": f"{HERE}:Parity", "loss": f"{HERE}:Known"}})
    for field in ("transform", "size", "batch_size"):
        del plain["tasks"]["two"][field]
    plain["tasks"]["two"] |= change
    return plain


def test_labels_are_found_by_id_and_the_unknown_is_marked() -> None:
    assembly = Assembly(Recipe.from_plain(recipe()))
    sources = assembly.sources()
    assert list(sources) == ["one"]
    batches = MixedBatches(sources, seed=0)
    drawn = [batches._index(sources["one"], "one", draw) for draw in range(4)]
    batch = batches[0]["one"]
    expected = [-1 if index % 3 == 0 else index % 2 for index in drawn]
    assert batch.targets["two"]["label"].tolist() == expected
    assert set(expected) != {-1}


def test_both_heads_see_the_maps_of_one_pass_and_each_loss_counts() -> None:
    assembly = Assembly(Recipe.from_plain(recipe()))
    model = assembly.model().train()
    batch = MixedBatches(assembly.sources(), seed=0)[0]
    passes: list[int] = []
    model.sharing.backbone.stem[0].register_forward_hook(lambda _, args, __: passes.append(len(args[0])))
    terms = forward_backward(model, batch, Sum(("one", "two")))
    assert passes == [4]
    assert list(terms) == ["one", "two"]
    assert all(head.linear.weight.grad.abs().sum() > 0 for head in model.heads.values())
    with torch.no_grad():
        outputs = model({"one": batch["one"].images}, {"two": "one"})
    assert outputs.keys() == {"one", "two"}


def test_it_trains_evaluates_and_is_loaded_again(tmp_path: Path) -> None:
    assembly = Assembly(Recipe.from_plain(recipe()))
    run = RunFolder(tmp_path / "run").create(assembly.recipe, assembly.infos)
    evaluations = Trainer(assembly, run).fit()
    assert set(evaluations) == {"one", "two"}
    with (run.path / "metrics.csv").open(encoding="utf-8") as file:
        assert {"one/cross_entropy", "two/cross_entropy"} <= set(csv.DictReader(file).fieldnames)
    again = run.recipe()
    # But for the files of its components, which are kept in the run.
    classes, kept = (part.renamed(lambda name: name.rpartition(":")[2]) for part in (assembly.recipe, again))
    assert kept == classes.model_copy(update={"base": run.path.resolve()})
    assert again.backbone.name == f"{run.path.resolve()}/components/toy.py:ToyBackbone"
    assert "size" not in run.recipe_file.read_text(encoding="utf-8").split("two:")[1].split("train:")[0]
    # What it has from the other task follows the other task.
    assert run.recipe(["tasks.one.size=64"]).tasks["two"].size == 64
    Assembly(again, run.infos()).model(restoring=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "three"}, r"tasks\.two\.images: expected a task that has images of its own, got 'three'"),
        ({"images": "two"}, r"got 'two'; there are: one"),
        ({"size": 64}, r"tasks\.two\.size: comes from task 'one', whose images are used; leave it out here"),
        ({"batch_size": 8}, r"tasks\.two\.batch_size: comes from task 'one'"),
        ({"dataset": f"{ToyData.__module__}"}, r"no dataset 'toy'"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_plain(recipe(**change)).check()


def test_a_data_set_that_cannot_label_by_id_is_refused_with_those_that_can() -> None:
    plain = recipe(dataset=toy_recipe()["tasks"]["one"]["dataset"])
    with pytest.raises(RecipeError, match=r"tasks\.two\.dataset: '.*:ToyData' cannot label the images of another task"):
        Recipe.from_plain(plain).check()


def test_images_that_are_mixed_are_not_lent_to_a_kind_of_target_that_cannot_be() -> None:
    plain = recipe(dataset=f"{HERE}:Numbers", head="regressor", loss="regression", metrics="regression")
    plain["tasks"]["one"]["transform"] = f"{HERE}:Mixing"
    said = r"tasks\.two\.images: the transform of 'one' makes one image of several, and a target of kind 'value' cannot"
    with pytest.raises(RecipeError, match=said):
        Assembly(Recipe.from_plain(plain)).sources()


def rows_of(run: RunFolder) -> list[dict[str, str]]:
    """What a run logged, without the speed."""
    with (run.path / "metrics.csv").open(encoding="utf-8") as file:
        return [{key: row[key] for key in row if key != "images_per_second"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("schedule", ["round-robin", "epochs"])
def test_tasks_in_turn_train_with_columns_for_each_and_resume_exactly(tmp_path: Path, schedule: str) -> None:
    plain = toy_recipe(schedule=schedule, steps=14, log_every=3, save_every_steps=5)
    recipe = Recipe.from_plain(plain)

    def train(name: str, stop_at: int | None = None) -> RunFolder:
        assembly = Assembly(recipe)
        run = RunFolder(tmp_path / name).create(recipe, assembly.infos)
        hooks = observe(recipe, strict=True)
        if stop_at:
            hooks.register(Stop(stop_at), "stop")
            with pytest.raises(RuntimeError, match="pulled the plug"):
                Trainer(assembly, run, hooks).fit()
            Trainer(Assembly(recipe, run.infos()), run, resume=True).fit()
        else:
            Trainer(assembly, run, hooks).fit()
        return run

    whole, resumed = train("whole"), train("resumed", stop_at=8)
    rows = rows_of(whole)
    assert [row["step"] for row in rows] == ["3", "6", "9", "12", "14"]
    assert rows == rows_of(resumed)
    if schedule == "epochs":
        # Five batches of the first task, then eight of the second.
        assert [bool(row["two/cross_entropy"]) for row in rows] == [False, True, True, True, True]
        assert [bool(row["one/cross_entropy"]) for row in rows] == [True, True, False, False, True]
    best = json.loads(whole.metrics_json.read_text(encoding="utf-8"))["best"]["tasks"]
    assert set(best) == {"one", "two"}


class Stop:
    """Raises at a step, as a killed process would end there."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def step_ended(self, step: int) -> None:
        if step == self.step:
            raise RuntimeError("pulled the plug")


def test_a_data_set_may_say_the_order_of_an_epoch() -> None:
    class Ordered(ToyData):
        def order(self, rng: np.random.Generator) -> np.ndarray:
            return np.roll(np.arange(len(self)), int(rng.integers(len(self))))

    from mtframe.data import Source

    source = Source(Ordered("train", count=6), ToyTransform(32, True), 3)
    batches = MixedBatches({"one": source}, seed=1)
    drawn = [batches._index(source, "one", draw) for draw in range(12)]
    for epoch in (drawn[:6], drawn[6:]):
        assert [(index - epoch[0]) % 6 for index in epoch] == list(range(6))
    assert drawn[:6] != drawn[6:]


def test_a_whole_epoch_without_a_label_is_an_error(tmp_path: Path) -> None:
    assembly = Assembly(Recipe.from_plain(recipe(dataset=f"{HERE}:Elsewhere")))
    run = RunFolder(tmp_path / "run").create(assembly.recipe, assembly.infos)
    with pytest.raises(TrainingError, match=r"tasks\.two\.dataset has no label for any image of task 'one'"):
        Trainer(assembly, run).fit()


def test_a_run_that_goes_on_waits_a_whole_epoch_for_labels(tmp_path: Path) -> None:
    plain = recipe()
    plain["train"] |= {"steps": 9, "save_every_steps": 7}
    run = RunFolder(tmp_path / "run").create(Recipe.from_plain(plain), Assembly(Recipe.from_plain(plain)).infos)
    hooks = Hooks(strict=True)
    hooks.register(Stop(8), "stop")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        Trainer(Assembly(run.recipe()), run, hooks).fit()
    # From here on no image has a label, and two steps are no epoch.
    run.recipe_file.write_text(
        run.recipe_file.read_text(encoding="utf-8").replace("Parity", "Elsewhere"), encoding="utf-8"
    )
    assert Trainer(Assembly(run.recipe(), run.infos()), run, resume=True).fit().keys() == {"one", "two"}


class Elsewhere(Parity):
    """Knows none of the images."""

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"label": torch.tensor(-1)}


def test_in_evaluation_the_lenders_data_completes_the_samples() -> None:
    plain = recipe()
    plain["tasks"]["one"]["dataset"] = f"{HERE}:Marked"
    assembly = Assembly(Recipe.from_plain(plain))
    dataset = deepcopy(assembly.readable("two", "val"))
    sample = dataset[3]
    assert sample.target["landmarks"].tolist() == [3.0]
    assert sample.target["label"] == ToyData("val")[3].target["label"]
    assert (len(dataset), assembly.infos["two"]) == (20, DataInfo("label", ("dark", "light")))


def test_an_unreadable_image_of_a_borrower_that_has_more_images_than_its_lender_counts_for_both() -> None:
    plain = recipe(dataset={"name": f"{HERE}:Parity", "count": 9, "bad": 4})
    plain["tasks"]["one"]["dataset"] = {"name": f"{HERE}:Parity", "count": 6}
    assembly = Assembly(Recipe.from_plain(plain))
    results = evaluate(assembly.model(), assembly, ("one", "two"), "val")
    assert {task: (result.images, result.skipped) for task, result in results.items()} == {
        "one": (5, ["toy/4.jpg: made to be bad"]),
        "two": (8, ["toy/4.jpg: made to be bad"]),
    }


class Marked(Parity):
    """Knows where something is in its images."""

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        number = int(id.removeprefix("toy/").removesuffix(".jpg"))
        return {"label": torch.tensor(-1), "landmarks": torch.tensor([float(number)])}


def test_a_recipe_in_a_file_keeps_what_it_lends(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(Recipe.from_plain(recipe()).to_yaml(), encoding="utf-8")
    assert load_recipe(file).tasks["two"].images == "one"


class Damaged(Parity):
    """Two of its labels cannot be read: one by its own rules, one as an image cannot be."""

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        if id == "toy/4.jpg":
            raise DataError(f"{id}: is 16x16, but its label is for 10x10")
        if id == "toy/7.jpg":
            raise BadImageError("toy/7.png", "is empty")
        return super().target_of(id, size)


def damaged() -> dict[str, Any]:
    """The recipe with labels that cannot be read, which evaluation asks for by the ids of the lender's split."""
    plain = recipe(dataset=f"{HERE}:Damaged")
    plain["tasks"]["one"]["dataset"] = f"{HERE}:Parity"
    return plain


REASONS = ["toy/4.jpg: is 16x16, but its label is for 10x10", "toy/7.png: is empty"]


def test_a_label_of_lent_images_that_cannot_be_read_is_unknown_and_the_picture_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assembly = Assembly(Recipe.from_plain(damaged()).check())
    sources = assembly.sources()
    batches, skipped, seen = MixedBatches(sources, seed=0), list[str](), dict[int, int]()
    for step in range(5):
        batch = batches[step]["one"]
        drawn = [batches._index(sources["one"], "one", draw) for draw in range(4 * step, 4 * step + 4)]
        seen |= dict(zip(drawn, batch.targets["two"]["label"].tolist(), strict=True))
        assert (batch.targets["one"]["label"] >= 0).all()
        skipped += batch.skipped
    assert seen == {index: -1 if index % 3 == 0 or index in (4, 7) else index % 2 for index in range(20)}
    assert sorted(skipped) == REASONS
    with caplog.at_level("WARNING", "mtframe"):
        scores = Trainer(assembly, tmp_path / "run").fit()
    # Each is logged once in training, and left out of the task's own score.
    assert {reason: sum(reason in line for line in caplog.messages) for reason in REASONS} == dict.fromkeys(REASONS, 2)
    assert (scores["one"].images, scores["one"].skipped) == (20, [])
    assert (scores["two"].images, scores["two"].skipped) == (18, REASONS)


def test_too_many_labels_that_cannot_be_read_end_a_training(tmp_path: Path) -> None:
    plain = damaged()
    plain["train"]["max_unreadable"] = 1
    with pytest.raises(TrainingError, match=r"2 images cannot be read, more than train\.max_unreadable=1"):
        Trainer(Assembly(Recipe.from_plain(plain).check()), tmp_path / "run").fit()


def test_an_image_whose_lender_cannot_label_it_is_left_out() -> None:
    data = WithTargetsOf(Parity("val"), Damaged("val"))
    assert data[5].target["label"] is not None
    with pytest.raises(BadImageError, match=r"toy/4\.jpg: .* is for 10x10"):
        data[4]
