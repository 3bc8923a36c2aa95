"""Whole trainings with every schedule: they learn, go on exactly, and every balancer bears tasks that are absent."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from command import mtframe
from mtframe.assembly import Assembly, observe
from mtframe.hooks import hookimpl
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from small import Small
from toy import toy_recipe

TOY = str(Path(__file__).parents[1] / "toy.py")
ENTRIES = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]
SCHEDULES: dict[str, dict[str, Any]] = {
    "joint": {"schedule": "joint"},
    "every": {"schedule": "joint"},
    "round-robin": {"schedule": "round-robin"},
    "epochs": {"schedule": "epochs"},
    "proportional": {"schedule": "proportional"},
    "temperature": {"schedule": {"name": "temperature", "temperature": 3.0}},
}


def recipe_of(schedule: str, balancer: str = "sum", **train: Any) -> Recipe:
    """A task of 20 images, in batches of 4, and one of 60; with `every` the first trains in each third step."""
    long = {"dataset": {"name": f"{TOY}:ToyData", "count": 60}}
    plain = toy_recipe(
        {"one": {"every": 3} if schedule == "every" else {}, "two": long}, **SCHEDULES[schedule], **train
    )
    return Recipe.from_plain({**plain, "balancer": balancer})


class Watch:
    """Counts who trained, and pulls the plug at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.trained: Counter[str] = Counter()

    @hookimpl
    def step_ended(self, step: int, losses: Any) -> None:
        self.trained.update(list(losses))
        if step == self.stop_at:
            raise RuntimeError("pulled the plug")


def train(path: Path, recipe: Recipe, watch: Watch | None = None) -> Trainer:
    assembly = Assembly(recipe)
    hooks = observe(recipe, strict=True)
    hooks.register(watch or Watch(), "watch")
    trainer = Trainer(assembly, RunFolder(path).create(recipe, assembly.infos), hooks)
    trainer.fit()
    return trainer


def rows_of(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: row[key] for key in row if key != "images_per_second"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_learns_both_tasks_and_trains_them_as_often_as_is_said(tmp_path: Path, schedule: str) -> None:
    watch = Watch()
    recipe = recipe_of(schedule, steps=160, lr=0.01, ema=None, log_every=40)
    trainer = train(tmp_path / "run", recipe, watch)
    assert min(result["accuracy"] for result in trainer.history[-1]["tasks"].values()) >= 0.85
    assert watch.trained == trainer.batches.schedule.draws(160)
    # 5 and 15 batches: a quarter of the steps, or 5^(1/3) / (5^(1/3) + 15^(1/3)) of them.
    expected = {"joint": 160, "every": 54, "round-robin": 80, "epochs": 40, "proportional": 40, "temperature": 65.5}
    assert watch.trained["one"] == pytest.approx(expected[schedule], abs=0.5)


@pytest.mark.parametrize(("schedule", "accumulate"), [*((name, 2) for name in SCHEDULES), ("temperature", 1)])
def test_a_run_that_was_killed_goes_on_exactly(tmp_path: Path, schedule: str, accumulate: int) -> None:
    recipe = recipe_of(schedule, steps=23, save_every_steps=4, log_every=3, accumulate=accumulate, evaluate_every=0.4)
    train(tmp_path / "whole", recipe)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        train(tmp_path / "killed", recipe, Watch(stop_at=11))
    Trainer.resume(tmp_path / "killed").fit()
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    written = [
        json.loads((tmp_path / name / "metrics.json").read_text(encoding="utf-8")) for name in ("whole", "killed")
    ]
    assert written[0] == written[1]
    weights = [torch.load(tmp_path / name / "checkpoints/last/training.pt")["model"] for name in ("whole", "killed")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("balancer", ENTRIES["mtframe.balancer"])
def test_every_balancer_bears_steps_in_which_tasks_are_absent(tmp_path: Path, balancer: str) -> None:
    if balancer == "torchjd":
        pytest.importorskip("torchjd", reason="TorchJD is not installed")
        pytest.importorskip("quadprog", reason="TorchJD's UPGrad needs quadprog, which is not installed")
        balancer = "torchjd/UPGrad"
    watch = Watch()
    trainer = train(tmp_path / "run", recipe_of("every", balancer, steps=9, lr=0.01), watch)
    assert watch.trained == {"one": 3, "two": 9}
    for row in rows_of(tmp_path / "run"):
        assert bool(row["one/cross_entropy"]) == ((int(row["step"]) - 1) % 3 == 0)
        assert math.isfinite(float(row["two/cross_entropy"]))
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())
    assert getattr(trainer.parts.balancer, "failures", 0) == 0


@pytest.mark.parametrize(
    "given",
    [
        "train.schedule=proportional",
        "train.schedule=temperature train.schedule.temperature=5",
        "train.schedule={name:_temperature,_temperature:_5}",
        "tasks.faces.every=2",
    ],
)
def test_a_schedule_is_chosen_on_the_command_line(small: Small, tmp_path: Path, given: str) -> None:
    path = tmp_path / "run"
    given = [override.replace("_", " ") for override in given.split()]
    result = mtframe("train", *small.parts, *given, "train.steps=4", "train.evaluate_every=null", "--out", path)
    assert (result.code, result.err) == (0, "")
    rows = rows_of(path)
    assert {bool(row["faces/identity"]) for row in rows} == {True, False}
    assert any(row["objects/score"] for row in rows)
