"""Parts are found, checked and made once, and data is opened once, however often a run is evaluated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from mtframe import _fit, _presets, assembly, recipe
from mtframe.assembly import Assembly
from mtframe.evaluation import evaluate
from mtframe.inference import load_run
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from toy import ToyData, toy_recipe

HERE = str(Path(__file__).resolve())

Made = Counter[tuple[str, str, Any]]


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
def found(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str, str]]:
    """Which names were looked up: by whom, of which kind."""
    counts: Counter[tuple[str, str, str]] = Counter()

    def count(module: Any) -> None:
        real = module.resolve

        def resolve(kind: str, name: str, base: Path | None = None) -> Any:
            counts[module.__name__, kind, name.rpartition(":")[2]] += 1
            return real(kind, name, base)

        monkeypatch.setattr(module, "resolve", resolve)

    for module in (recipe, _fit, _presets, assembly):
        count(module)
    return counts


def three_tasks() -> Recipe:
    """Two with pictures of their own, the third on those of the first."""
    plain = toy_recipe(
        {"one": {"dataset": f"{HERE}:Known"}, "two": {"dataset": {"name": f"{HERE}:Known", "count": 12}}, "three": {}},
        steps=8, evaluate_every=0.5,
    )  # fmt: skip
    plain["tasks"]["three"] = {
        **{slot: plain["tasks"]["one"][slot] for slot in ("dataset", "head", "loss", "metrics")}, "images": "one"
    }  # fmt: skip
    plain["hooks"] = ["csv-logger"]
    return Recipe.from_plain(plain)


def test_a_training_with_evaluations_and_the_run_of_it(
    made: Made, found: Counter[tuple[str, str, str]], tmp_path: Path
) -> None:
    checked = three_tasks().check()
    looked_up = Counter(found)
    places = Counter(kind for _, kind, _ in checked.recipe.choices())
    # A place of the recipe each, and each task's kind of target.
    assert {kind: sum(n for (_, its, _), n in looked_up.items() if its == kind) for _, kind, _ in looked_up} == {
        **places, "target": 3
    }  # fmt: skip

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
    # Whatever was found in the check is not looked for again.
    more = found - looked_up
    assert {(module, kind): number for (module, kind, _), number in more.items()} == {
        ("mtframe.assembly", "target"): 3, ("mtframe.assembly", "hooks"): 1
    }  # fmt: skip

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
    assert max(found.values()) <= 3
    # Without what only training needs; kinds of target, which this recipe does not name, in the check and to be made.
    needed = sum(number for kind, number in places.items() if kind not in recipe.TRAINING_ONLY)
    assert sum(found.values()) == needed + 2 * 3


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
