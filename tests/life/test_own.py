"""What is a task's own, whatever the task is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_tasks import HERE, done, outputs, same, train_two

from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.recipe import Recipe
from mtframe.training import Trainer, add_task, remove_task
from mtframe.training._own import is_within, own_parts
from mtframe.training._start import start_model
from mtframe.yaml import dump_yaml
from toy import toy_recipe

# Parts of the trunk have these names too.
NAMES = ("network", "bn1")
TASKS: dict[str, dict[str, Any]] = {name: {} for name in NAMES}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
NORMED = f"{HERE}:NormedBackbone"


def third(name: str) -> str:
    return f"{name}={HERE}:Third"


def weights(run: Path, checkpoint: str = "best") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / checkpoint / "weights.safetensors")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_two(tmp_path_factory.mktemp("own") / "old", sharing="adapters", backbone=NORMED)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tasks are called as parts of its trunk are."""
    out = tmp_path_factory.mktemp("own") / "named"
    plain = toy_recipe(TASKS, steps=4, lr=0.01) | {"sharing": "adapters", "backbone": NORMED}
    out.with_suffix(".yaml").write_text(dump_yaml(plain), encoding="utf-8")
    done("train", out.with_suffix(".yaml"), "--out", out)
    return out


@pytest.mark.parametrize(
    ("sharing", "containers"),
    [
        ("network", []),
        ({"name": "layers", "shared": 1}, ["branches"]),
        ("adapters", ["inserted.tasks"]),
        ("mtan", ["attention"]),
        ("mmoe", ["gates"]),
        ("cross-stitch", ["columns", "units.0", "units.1"]),
    ],
    ids=["network", "layers", "adapters", "mtan", "mmoe", "cross-stitch"],
)
def test_own_parts_are_those_in_dictionaries_of_tasks(sharing: object, containers: list[str]) -> None:
    plain = toy_recipe(TASKS) | {"sharing": sharing, "backbone": NORMED}
    places = ["heads", "losses", *(f"sharing.{name}" for name in containers)]
    found = own_parts(Assembly(Recipe.from_plain(plain)).model())
    assert found == {f"{place}.{task}": task for place in places for task in NAMES}
    assert is_within("heads.bn1.linear.weight", found)
    assert not is_within("heads.bn10.linear.weight", found)


@pytest.mark.parametrize("name", NAMES)
def test_a_trunk_part_of_the_new_tasks_name_keeps_its_statistics(old: Path, tmp_path: Path, name: str) -> None:
    Trainer(add_task(old, third(name), ["train.steps=3"], finetune=True), tmp_path / "new").fit()
    before, after = weights(old), weights(tmp_path / "new", "last")
    kept = [name for name in before if name.rpartition(".")[2] in STATISTICS]
    assert any(".bn1." in name for name in kept)
    assert all(torch.equal(after[name], before[name]) for name in kept)


@pytest.mark.parametrize("name", NAMES)
def test_a_trunk_part_of_the_new_tasks_name_is_frozen(old: Path, tmp_path: Path, name: str) -> None:
    assembly = add_task(old, third(name), ["train.steps=3"])
    assert "sharing.inserted.network" in assembly.recipe.train.freeze
    _, loaded = start_model(assembly, restoring=False)
    assert loaded is not None
    assert loaded.like == {name: "one"}
    Trainer(assembly, tmp_path / "new").fit()
    assert same(outputs(old, {"one": 32, "two": 32}), outputs(tmp_path / "new", {"one": 32, "two": 32}))


def test_only_what_was_copied_is_said_to_be(old: Path) -> None:
    plain = toy_recipe({"one": {}, "network": {}}, start=str(old)) | {"sharing": "network", "backbone": NORMED}
    _, loaded = start_model(Assembly(Recipe.from_plain(plain)), restoring=False)
    assert loaded is not None
    assert loaded.like == {}


@pytest.mark.parametrize(("goes", "stays"), [NAMES, NAMES[::-1]])
def test_a_task_goes_and_parts_of_the_trunk_of_its_name_stay(
    named: Path, tmp_path: Path, goes: str, stays: str
) -> None:
    remove_task(named, goes, tmp_path / "new")
    assert same(outputs(named, {stays: 32}), outputs(tmp_path / "new", {stays: 32}))
    own = {f"{place}.{goes}" for place in ("heads", "losses", "sharing.inserted.tasks")}
    assert set(weights(tmp_path / "new")) == {name for name in weights(named) if not is_within(name, own)}


def test_a_part_of_the_trunk_that_would_be_lost_is_not_the_tasks_own(tmp_path: Path) -> None:
    plain = toy_recipe(TASKS, steps=1) | {"backbone": NORMED, "sharing": f"{HERE}:Leaning"}
    file = tmp_path / "old.yaml"
    file.write_text(dump_yaml(plain), encoding="utf-8")
    done("train", file, "--out", tmp_path / "old")
    with pytest.raises(RecipeError, match=r"bn1 cannot be removed: sharing\.more\.bn1\.weight would have no place"):
        remove_task(tmp_path / "old", "bn1", tmp_path / "new")
