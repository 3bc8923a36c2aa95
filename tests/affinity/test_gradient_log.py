"""`train.gradients_every`: what a run writes down of its tasks' gradients."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from constructed import constructed

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.hooks import Hooks, hookimpl
from mtframe.recipe import Recipe
from mtframe.training import Interrupted, Trainer
from mtframe.yaml import dump_yaml
from toy import toy_recipe


class Observer:
    """Keeps what is logged, and presses Ctrl-C after a step."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.logged: dict[int, dict[str, float]] = {}

    @hookimpl
    def step_ended(self, step: int) -> None:
        if step == self.stop:
            os.kill(os.getpid(), signal.SIGINT)

    @hookimpl
    def metrics_logged(self, step: int, values: dict[str, float]) -> None:
        self.logged[step] = {name: value for name, value in values.items() if "." in name}


def train(path: Path, plain: dict[str, Any], *, stop: int | None = None, resume: bool = False) -> Observer:
    observer, hooks = Observer(stop), Hooks(strict=True)
    hooks.register(observer)
    if resume:
        Trainer.resume(path, hooks).fit()
        return observer
    recipe = Recipe.from_plain(plain)
    trainer = Trainer(Assembly(recipe), path, hooks)
    if stop is None:
        trainer.fit()
    else:
        with pytest.raises(Interrupted):
            trainer.fit()
    return observer


def read(path: Path) -> list[dict[str, str]]:
    with (path / "gradients.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pairs(rows: list[dict[str, str]], stage: str = "all") -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["stage"] == stage and row["other"]:
            found.setdefault((row["task"], row["other"]), []).append(float(row["cosine"]))
    return found


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_constructed_tasks_conflict_as_they_must(tmp_path: Path, norm: str) -> None:
    train(tmp_path / "run", constructed(norm=norm, steps=60, gradients_every=3))
    rows = read(tmp_path / "run")
    for stage in ("all", "1", "2", "3"):
        cosines = pairs(rows, stage)
        assert all(len(values) == 20 for values in cosines.values())
        for task in ("original", "duplicate"):
            assert max(cosines[task, "adversarial"]) < -0.5
        assert min(cosines["original", "duplicate"]) > 0.5
    unrelated = pairs(rows)["original", "unrelated"]
    assert abs(sum(unrelated) / 20) < 0.1
    assert 0.2 < sum(value < 0 for value in unrelated) / 20 < 0.8
    assert (tmp_path / "run" / "plots" / "gradients.png").stat().st_size > 10_000
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "gradients of original and adversarial in 20 measured steps: mean cosine -0." in log
    assert "opposed in 100% (first half 100%, second 100%)" in log
    assert "gradients of unrelated: median length " in log


def test_a_row_a_task_and_a_row_a_pair_for_each_stage(tmp_path: Path) -> None:
    train(tmp_path / "run", toy_recipe(steps=9, gradients_every=4, lr=0.02, optimizer="sgd", clip_grad=None))
    rows = read(tmp_path / "run")
    assert list(rows[0]) == ["step", "stage", "task", "other", "cosine", "norm", "weight", "effective_lr"]
    keys = [(row["step"], row["stage"], row["task"], row["other"]) for row in rows]
    assert keys == [
        (step, stage, task, other)
        for step in ("4", "8")
        for stage in ("all", "1", "2")
        for task, other in (("one", ""), ("two", ""), ("one", "two"))
    ]
    assert {row["weight"] for row in rows} == {"1", ""}


def test_a_measured_run_learns_as_one_that_is_not(tmp_path: Path) -> None:
    finals = []
    for every in (None, 2):
        plain = toy_recipe(steps=6, gradients_every=every, optimizer="sgd", lr=0.05)
        recipe = Recipe.from_plain(plain)
        trainer = Trainer(Assembly(recipe), tmp_path / str(every))
        trainer.fit()
        finals.append(trainer.model.state_dict())
    assert (tmp_path / "2" / "gradients.csv").is_file()
    assert not (tmp_path / "None" / "gradients.csv").exists()
    for name, value in finals[0].items():
        assert (finals[1][name] - value).abs().max() <= 1e-5, name


@pytest.mark.parametrize("stop", [2, 5, 6, 7])
def test_a_run_that_goes_on_gives_the_rows_of_one_that_never_stopped(tmp_path: Path, stop: int) -> None:
    plain = toy_recipe(steps=12, gradients_every=3, log_every=4, save_every_steps=100)
    whole = train(tmp_path / "whole", plain)
    first = train(tmp_path / "run", plain, stop=stop)
    # Killed later than it was saved, in the middle of a line.
    with (tmp_path / "run" / "gradients.csv").open("a", encoding="utf-8") as file:
        file.write("9,all,one,,,1,1,1\n9,all,tw" if stop > 2 else "")
    second = train(tmp_path / "run", plain, resume=True)
    assert (tmp_path / "run" / "gradients.csv").read_text(encoding="utf-8") == (
        tmp_path / "whole" / "gradients.csv"
    ).read_text(encoding="utf-8")
    assert first.logged | second.logged == whole.logged


def test_observers_get_what_was_measured_since_they_were_called_last(tmp_path: Path) -> None:
    logged = train(tmp_path / "run", toy_recipe(steps=8, gradients_every=3, log_every=2)).logged
    names = {"cosine.one.two", "gradient_norm.one", "gradient_norm.two", "effective_lr.one", "effective_lr.two"}
    assert {step: set(values) for step, values in logged.items()} == {2: set(), 4: names, 6: names, 8: set()}
    rows = [row for row in read(tmp_path / "run") if row["step"] == "6" and row["stage"] == "all"]
    assert logged[6]["cosine.one.two"] == float(rows[2]["cosine"])
    assert logged[6]["effective_lr.two"] == float(rows[1]["effective_lr"])


def test_a_task_that_trains_in_every_second_step_is_not_missed(tmp_path: Path) -> None:
    """Steps 1, 3, 5, ... have both; of the steps 4 and 8 none has."""
    train(tmp_path / "run", toy_recipe({"one": {}, "two": {"every": 2}}, steps=12, gradients_every=4))
    assert list(dict.fromkeys(row["step"] for row in read(tmp_path / "run"))) == ["5", "9"]


def test_a_step_in_which_labels_leave_one_task_is_not_measured(tmp_path: Path) -> None:
    trainer = Trainer(Assembly(Recipe.from_plain(toy_recipe(steps=6, gradients_every=1))), tmp_path / "run")
    step = trainer.train_step

    def without_labels(group: Any) -> None:
        if trainer.step % 2:
            group[0]["two"].targets.clear()
        step(group)

    trainer.train_step = without_labels  # type: ignore[method-assign]
    trainer.fit()
    assert list(dict.fromkeys(row["step"] for row in read(tmp_path / "run"))) == ["1", "3", "5"]


@pytest.mark.parametrize(("change", "said"), [
    ({"tasks": ["original"]}, "train.gradients_every: compares tasks, and 'original' is the only one"),
    ({"schedule": "round-robin"}, "train.gradients_every: compares tasks in one step, and none has two of them"),
])  # fmt: skip
def test_what_cannot_be_compared_is_told_before_there_is_a_run(here: Path, change: Any, said: str) -> None:
    tasks = change.pop("tasks", ["original", "duplicate"])
    (here / "recipe.yaml").write_text(dump_yaml(constructed(*tasks, gradients_every=1, **change)), encoding="utf-8")
    result = mtframe("train", "recipe.yaml")
    assert result.code == 2
    assert result.err.startswith(f"error: {said}")
    assert not (here / "runs").exists()


def test_tasks_that_share_nothing_or_only_what_is_frozen_are_told(tmp_path: Path) -> None:
    plain = constructed("original", "unrelated", gradients_every=1)
    plain["sharing"] = {"name": "layers", "shared": 0}
    with pytest.raises(RecipeError, match="tasks original, unrelated have no trained parameters in common"):
        Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
