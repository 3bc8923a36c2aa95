"""Training ends when nothing gets better, at the same step whether it was interrupted or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command import mtframe
from mtframe.assembly import Assembly, observe
from mtframe.errors import RecipeError
from mtframe.hooks import hookimpl
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe.yaml import dump_yaml
from toy import ToyMetric, toy_recipe

HERE = str(Path(__file__).resolve())

# What the scripted metric says, evaluation by evaluation: the best is the second.
SCRIPT = [0.5, 0.8, 0.7, 0.6, 0.6, 0.6, 0.9]


class Scripted(ToyMetric):
    """The n-th step's score, whatever was predicted; `step` is set by the observer below."""

    step = 0

    def compute(self) -> dict[str, float]:
        return {"accuracy": SCRIPT[type(self).step - 1]}


class Clock:
    """Tells the metric the step, and pulls the plug after one."""

    def __init__(self, *, until: int | None = None) -> None:
        self.until = until

    @hookimpl
    def step_ended(self, step: int) -> None:
        from mtframe.registry import resolve

        resolve("metric", f"{HERE}:Scripted").component.step = step
        if self.until == step:
            raise RuntimeError("pulled the plug")


def recipe(**stopping: Any) -> dict[str, Any]:
    """An evaluation after each of 7 steps: 8 images in batches of 8 are an epoch of one step."""
    dataset = {"name": toy_recipe()["tasks"]["one"]["dataset"], "count": 8}
    part = {"dataset": dataset, "batch_size": 8, "metrics": [f"{HERE}:Scripted"]}
    plain = toy_recipe({"one": part}, steps=7, evaluate_every=1, save_every_steps=1)
    return {**plain, "hooks": ["csv-logger", f"{HERE}:Clock", {"name": "early-stopping", **stopping}]}


def trained(path: Path, plain: dict[str, Any]) -> Trainer:
    resolved = Recipe.from_plain(plain)
    assembly = Assembly(resolved)
    trainer = Trainer(assembly, RunFolder(path).create(resolved, assembly.infos), observe(resolved, strict=True))
    trainer.fit()
    return trainer


@pytest.mark.parametrize(("options", "last"), [
    # The best, 0.8, is of step 2.
    ({"patience": 1}, 3),
    ({"patience": 3}, 5),
    ({"patience": 2, "task": "one"}, 4),
    # Longer than it takes to get better again.
    ({"patience": 5}, 7),
])  # fmt: skip
def test_patience_counts_evaluations_without_a_better_checkpoint(
    tmp_path: Path, options: dict[str, Any], last: int
) -> None:
    trainer = trained(tmp_path / "run", recipe(**options))
    assert trainer.step == last
    assert (trainer.stopped is None) == (last == 7)
    scores = [evaluation["tasks"]["one"]["accuracy"] for evaluation in trainer.history]
    assert scores == SCRIPT[:last]
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["best"]
    assert kept["steps"] == {"best": 7 if last == 7 else 2, "best_one": 7 if last == 7 else 2}


def test_a_run_that_goes_on_ends_where_one_that_never_stopped_does(tmp_path: Path) -> None:
    plain = recipe(patience=3)
    plain["hooks"][1] = {"name": f"{HERE}:Clock", "until": 4}
    with pytest.raises(RuntimeError, match="pulled the plug"):
        trained(tmp_path / "run", plain)
    run = RunFolder.open(tmp_path / "run")
    assembly = Assembly(Recipe.from_plain(recipe(patience=3)), run.infos())
    resumed = Trainer(assembly, run, resume=True)
    assert resumed.step == 3
    resumed.fit()
    assert resumed.step == 5
    with pytest.raises(RecipeError, match="was ended at step 5 of 7: 3 evaluations without a better 'best', which is"):
        Trainer(assembly, run, resume=True)


def test_a_training_that_ends_early_says_so(here: Path) -> None:
    Path("recipe.yaml").write_text(dump_yaml({**recipe(), "hooks": [f"{HERE}:Clock"]}), encoding="utf-8")
    result = mtframe("train", "recipe.yaml", "--with", "{name: early-stopping, patience: 1}", "--out", "run")
    assert (result.code, result.err) == (0, "")
    assert "ended at step 3 of 7: 1 evaluations without a better 'best', which is of step 2\n" in result.out
    assert "ended at step 3 of 7" in Path("run/log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("options", "said"), [
    ({"patience": 0}, r"hooks\.2\.patience: must be 1 or more, got 0"),
    ({"task": "none"}, "early-stopping: no task 'none'; the tasks are one"),
])  # fmt: skip
def test_a_wrong_option_ends_the_call_before_training(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        observe(Recipe.from_plain(recipe(**options)))
