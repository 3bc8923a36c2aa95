"""`train.groups` name parts of a model; with a task its parts come and go."""

from __future__ import annotations

from pathlib import Path

from toy_tasks import THIRD

from mtframe.assembly import Assembly
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer, add_task, remove_task
from toy import toy_recipe


def test_groups_go_with_the_task_that_they_name_and_not_into_a_run_with_another(tmp_path: Path) -> None:
    groups = [{"part": "heads.two", "lr_scale": 2.0}, {"part": "backbone", "layer_decay": 0.5}]
    old = tmp_path / "run"
    Trainer(Assembly(Recipe.from_plain(toy_recipe(groups=groups, steps=1))), old).fit()
    remove_task(old, "two", tmp_path / "one")
    assert [group.plain() for group in RunFolder.open(tmp_path / "one").recipe().train.groups] == groups[1:]
    # Of a new task, all that is old is frozen.
    assert add_task(old, THIRD).recipe.train.groups == []
    added = add_task(old, THIRD, ["train.groups=[{part: heads.three, lr_scale: 3}]"])
    assert [group.plain() for group in added.recipe.train.groups] == [{"part": "heads.three", "lr_scale": 3.0}]
