"""Parts are found, checked and made once, and data is opened once, however often a run is evaluated."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtframe import assembly, recipe, registry
from mtframe.assembly import Assembly
from mtframe.cli._summary import summarise
from mtframe.data import DataInfo
from mtframe.evaluation import evaluate
from mtframe.inference import Predictor, load_run
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from toy import ToyData, toy_recipe

HERE = str(Path(__file__).resolve())

Made = Counter[tuple[str, str, Any]]
Found = Counter[tuple[str, str]]


class Known(ToyData):
    """Knows the toy's images by their ids too."""

    def ids(self) -> list[str]:
        return [f"toy/{index}.jpg" for index in range(self.count)]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return ToyData.__getitem__(self, int(id.removeprefix("toy/").removesuffix(".jpg"))).target


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """What assemblies have made: its kind, its place in the recipe, and the split or whether it augments."""
    counts: Made = Counter()
    real = assembly.construct

    def construct(component: Any, kind: str, options: Any, wired: Any, where: str) -> Any:
        counts[kind, where, wired.get("split", wired.get("train"))] += 1
        return real(component, kind, options, wired, where)

    monkeypatch.setattr(assembly, "construct", construct)
    return counts


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """Which names were looked up, of which kind: by whomever in the package."""
    counts: Found = Counter()
    real = registry.resolve

    def resolve(kind: str, name: str, base: Path | None = None) -> Any:
        counts[kind, name] += 1
        return real(kind, name, base)

    # There may be users of it that nobody has thought of here.
    for module in [its for name, its in sys.modules.items() if name.partition(".")[0] == "mtframe"]:
        if vars(module).get("resolve") is real:
            monkeypatch.setattr(module, "resolve", resolve)
    return counts


def three_tasks(second: int = 32) -> Recipe:
    """Two with pictures of their own, the third on those of the first; `second`: the size of the second's inputs."""
    plain = toy_recipe(
        {"one": {"dataset": f"{HERE}:Known"},
         "two": {"dataset": {"name": f"{HERE}:Known", "count": 12}, "size": second}, "three": {}},
        steps=8, evaluate_every=0.5,
    )  # fmt: skip
    plain["tasks"]["three"] = {
        **{slot: plain["tasks"]["one"][slot] for slot in ("dataset", "head", "loss", "metrics")}, "images": "one"
    }  # fmt: skip
    plain["hooks"] = ["csv-logger"]
    return Recipe.from_plain(plain)


def test_a_training_with_evaluations_and_the_run_of_it(made: Made, found: Found, tmp_path: Path) -> None:
    checked = three_tasks().check()
    # Each name of the recipe once, however many tasks have it, and the kind of target of all.
    names = {(kind, choice.name) for _, kind, choice in checked.recipe.choices()}
    assert found == Counter({*names, ("target", "label")})
    looked_up = Counter(found)

    trained = Assembly(checked)
    for task in checked.recipe.tasks:
        trained.metrics(task, "val")
    trainer = Trainer(trained, RunFolder(tmp_path / "run"))
    trainer.fit()
    assert len(trainer.history) >= 2
    assert set(made.values()) == {1}, made
    assert {key for key in made if key[0] in ("dataset", "transform", "metric", "target")} == {
        *(("dataset", f"tasks.{task}.dataset", split) for task in checked.recipe.tasks for split in ("train", "val")),
        # The third has the inputs of the first.
        *(("transform", f"tasks.{task}.transform", train) for task in ("one", "two") for train in (True, False)),
        *(("metric", f"tasks.{task}.metrics.0", None) for task in checked.recipe.tasks),
        *(("target", f"tasks.{task}.target", None) for task in checked.recipe.tasks),
    }  # fmt: skip
    # Whatever was found in the check is not looked for again, be it built or noted down as the run's origins; only the
    # copies that the run keeps of files are tried, at each place.
    copies = Counter((kind, name) for kind, name in (found - looked_up).elements())
    assert {name.partition(":")[0] for _, name in copies} == {
        f"./components/{stem}.py" for stem in ("toy", "test_parts_once")
    }  # fmt: skip
    kept = Counter((kind, choice.name) for _, kind, choice in trainer.run.recipe().choices())
    assert sum(copies.values()) == sum(n for (_, name), n in kept.items() if "/components/" in name)
    assert set((trainer.run.path / "environment.json").read_text(encoding="utf-8").split('"')) >= {
        "target",
        "csv-logger",
        "network",
    }

    made.clear()
    found.clear()
    predictor = load_run(tmp_path / "run", device="cpu")
    for _ in range(2):
        predictor.evaluate_many()
        predictor.evaluate("three")
    assert set(made.values()) == {1}, made
    # No training data is opened; its transform tells which tasks share a pass.
    assert {key for key in made if key[0] == "dataset"} == {
        ("dataset", f"tasks.{task}.dataset", "val") for task in ("one", "two", "three")
    }
    assert {kind for kind, _, _ in made} == {
        "backbone", "sharing", "head", "loss", "target", "transform", "dataset", "metric"
    }  # fmt: skip
    # Without what only training needs.
    assert set(found.values()) == {1}
    assert Counter(kind for kind, _ in found) == {
        **Counter(kind for kind, _ in names if kind not in recipe.TRAINING_ONLY), "target": 1
    }  # fmt: skip


def test_presets_are_looked_up_once_from_reading_a_recipe_to_its_run(found: Found, tmp_path: Path) -> None:
    plain = toy_recipe({"one": {"preset": "image-classification"}, "two": {"preset": "image-classification"}}, steps=1)
    checked = Recipe.from_plain(plain).check()
    Trainer(Assembly(checked), RunFolder(tmp_path / "run")).fit()
    assert found["preset", "image-classification"] == 1


def test_a_file_that_was_edited_is_read_again_when_the_recipe_is_checked_again(tmp_path: Path) -> None:
    file = tmp_path / "heads.py"
    file.write_text("from toy import ToyHead\nclass Head(ToyHead): number = 1\n", encoding="utf-8")
    recipe = Recipe.from_plain(toy_recipe({"one": {"head": f"{file}:Head"}}))
    assert recipe.check().parts["tasks.one.head"].resolved.component.number == 1
    file.write_text("from toy import ToyHead\nclass Head(ToyHead): number = 2\n", encoding="utf-8")
    assert recipe.check().parts["tasks.one.head"].resolved.component.number == 2


def test_no_training_transform_is_made_to_predict_with_sizes_of_their_own(made: Made) -> None:
    checked = three_tasks(48).check()
    parts = Assembly(checked, dict.fromkeys(checked.recipe.tasks, DataInfo("label", ("dark", "light"))))
    predictor = Predictor(parts, parts.model(restoring=True), torch.device("cpu"))
    assert parts.groups() == (("one", "three"), ("two",))
    predictor.predict(torch.zeros(3, 16, 16, dtype=torch.uint8))
    predictor.evaluate_many()
    assert {key for key in made if key[0] == "transform"} == {
        ("transform", f"tasks.{task}.transform", False) for task in ("one", "two")
    }
    assert set(made.values()) == {1}


def test_a_summary_makes_what_two_models_need_and_looks_nothing_up(made: Made, found: Found) -> None:
    checked = three_tasks().check()
    before = Counter(found)
    assert "separate models take" in summarise(checked)
    assert [name for _, name in (found - before)] == []
    twice = {key for key, number in made.items() if number == 2}
    # The recipe's model and the one that it is compared with.
    assert {kind for kind, _, _ in twice} == {"backbone", "head", "loss"}
    assert set(made.values()) == {1, 2}


def test_another_split_is_another_data_set_and_nothing_else(made: Made) -> None:
    parts = Assembly(three_tasks().check())
    model = parts.model()
    evaluate(model, parts, ["one", "two"], "val")
    before = Counter(made)
    evaluate(model, parts, ["one", "two"], "train")
    assert sorted(made - before) == [
        ("dataset", "tasks.one.dataset", "train"), ("dataset", "tasks.two.dataset", "train"),
        ("metric", "tasks.one.metrics.0", None), ("metric", "tasks.two.metrics.0", None),
    ]  # fmt: skip
