"""A run without one of its tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_tasks import HERE, THIRD, Trained, done, outputs, same, train_two

from command import mtframe
from mtframe.errors import RecipeError
from mtframe.recipe import Choice, Recipe
from mtframe.run import RunFolder
from mtframe.training import remove_task
from mtframe.training._life import _reduced
from mtframe.yaml import parse_yaml
from toy import toy_recipe


@pytest.mark.parametrize("sharing", ["network", "layers"])
@pytest.mark.parametrize("sizes", [(32, 32), (32, 64)], ids=["one pass", "two passes"])
@pytest.mark.parametrize(("goes", "stays"), [("one", "two"), ("two", "one")])
def test_the_other_tasks_give_the_same_bit_by_bit(
    trained: Trained, tmp_path: Path, sharing: str, sizes: tuple[int, int], goes: str, stays: str
) -> None:
    old, new = trained(sizes, sharing), tmp_path / "new"
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    said = done("remove-task", old, goes, "--out", new).out
    assert f"removed {goes}; left are {stays}, as they were" in said
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before

    given = {stays: dict(zip(("one", "two"), sizes, strict=True))[stays]}
    assert {folder.name for folder in (new / "checkpoints").iterdir()} == {"last", "best", f"best_{stays}"}
    for checkpoint in ("last", "best", f"best_{stays}"):
        assert same(outputs(old, given, checkpoint), outputs(new, given, checkpoint))
    names = load_file(new / "checkpoints" / "best" / "weights.safetensors")
    theirs = load_file(old / "checkpoints" / "best" / "weights.safetensors")
    assert set(names) == {name for name in theirs if goes not in name.split(".")}
    run = RunFolder(new)
    assert (list(run.recipe().tasks), list(run.infos())) == ([stays], [stays])
    assert f"made of {old} without its task {goes}" in run.log_file.read_text(encoding="utf-8")
    assert list(json.loads(done("evaluate", new, "--json").out)) == [stays]


def test_what_was_added_can_be_removed_again(trained: Trained, tmp_path: Path) -> None:
    old = trained((32, 64))
    done("add-task", old, THIRD, "tasks.three.size=48", "train.steps=2", "--out", tmp_path / "three")
    done("remove-task", tmp_path / "three", "three")
    again = load_file(tmp_path / "three-without-three" / "checkpoints" / "best" / "weights.safetensors")
    first = load_file(old / "checkpoints" / "best" / "weights.safetensors")
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    train = RunFolder(tmp_path / "three-without-three").recipe().train
    assert (train.start, train.tasks, train.freeze) == (str(tmp_path / "three"), None, [])


def test_what_is_left_can_be_trained_further(tmp_path: Path) -> None:
    balancer = {"name": "sum", "weights": {"one": 2.0, "two": 3.0}}
    old, new = train_two(tmp_path / "old", balancer=balancer), tmp_path / "new"
    run = remove_task(old, "two", new)
    assert run.recipe().balancer.options == {"weights": {"one": 2.0}}
    result = mtframe("train", "--resume", new)
    way = f"mtframe train {new / 'recipe.yaml'} --from {new}"
    assert (result.code, way in result.err) == (2, True)
    # Where it cannot be resumed, nobody is sent there.
    again = mtframe("remove-task", old, "two", "--out", new)
    assert (again.code, "already exists" in again.err, "--resume" in again.err) == (2, True, False)
    assert (
        f"or, if it was stopped, go on with the run in it: mtframe train --resume {old}"
        in mtframe("remove-task", old, "two", "--out", old).err
    )
    assert "sharing: 14 of 14" in done(*way.split()[1:], "--out", tmp_path / "further").out


def test_one_that_is_left_has_no_gradients_to_compare(tmp_path: Path) -> None:
    old, new = train_two(tmp_path / "old", balancer="mgda"), tmp_path / "new"
    file = old / "recipe.yaml"
    file.write_text(
        file.read_text(encoding="utf-8").replace("gradients_every: null", "gradients_every: 2"), encoding="utf-8"
    )
    assert remove_task(old, "two", new).recipe().train.gradients_every is None
    done("train", new / "recipe.yaml", "--from", new, "--out", tmp_path / "further")


THREE: dict[str, Any] = {"a": {}, "b": {}, "c": {}}


def reduced(task: str, tasks: dict[str, Any] = THREE, balancer: Any = "sum", **train: Any) -> Recipe:
    return _reduced(Recipe.from_plain(toy_recipe(tasks, **train) | {"balancer": balancer}), "run", task)


def test_two_that_are_left_are_compared_as_before() -> None:
    assert reduced("c", gradients_every=5).train.gradients_every == 5


@pytest.mark.parametrize(
    ("balancer", "options"),
    [
        # TorchJD knows no names.
        (
            {"name": "torchjd/UPGrad", "arguments": {"pref_vector": [0.2, 0.5, 0.3]}},
            {"arguments": {"pref_vector": [0.2, 0.3]}},
        ),
        ({"name": "torchjd/Krum", "arguments": {"one": [1, 2]}}, {"arguments": {"one": [1, 2]}}),
        ({"name": "torchjd/CAGrad", "arguments": {"b": 0.5}}, {"arguments": {"b": 0.5}}),
        ({"name": "cagrad", "b": 0.5}, {"b": 0.5}),
        # By task: all keys are tasks.
        ({"name": "sum", "weights": {"b": 2.0, "c": 3.0}}, {"weights": {"c": 3.0}}),
        ({"name": "their", "inner": {"b": 2.0, "rate": 3.0}}, {"inner": {"b": 2.0, "rate": 3.0}}),
    ],
)
def test_only_what_a_balancer_has_by_task_goes(balancer: dict[str, Any], options: dict[str, Any]) -> None:
    assert reduced("b", balancer=balancer).balancer == Choice(name=balancer["name"], options=options)


def test_one_that_is_left_takes_part_in_every_step() -> None:
    left = reduced("a", {"a": {}, "b": {"every": 2}, "c": {"every": 6}})
    assert {name: task.every for name, task in left.tasks.items()} == {"b": 1, "c": 3}
    assert Recipe.from_plain(parse_yaml(left.to_yaml(), "left")) == left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "a/b"], "tasks.a/b: expected a task's name of letters, digits, '_' and '-'"),
        (["/", "two"], "/: no recipe.yaml in it, so it is no run"),
        (["{run}", "three"], "'three': no such task; the tasks of {run} are one, two"),
        (["{run}", "one"], "'one': two uses its images (images: one), so it cannot go first"),
        (["{run}-not", "one"], "no such folder. A run is what 'mtframe train' writes"),
        (["{run}", "two", "--out", "{run}"], "already exists and is not empty"),
    ],
)
def test_mistakes(lent: Path, arguments: list[str], message: str) -> None:
    there = sorted(lent.parent.iterdir())
    result = mtframe("remove-task", *(part.format(run=lent) for part in arguments))
    assert result.code == 2
    assert message.format(run=lent) in result.err
    assert sorted(lent.parent.iterdir()) == there


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second task uses the images of the first."""
    out = tmp_path_factory.mktemp("lent") / "old"
    return train_two(out, two={"images": "one", "dataset": f"{HERE}:Named"})


def test_the_borrower_goes_then_the_last_one_stays(lent: Path, tmp_path: Path) -> None:
    remove_task(lent, "two", tmp_path / "new")
    with pytest.raises(RecipeError, match=r"'one': the only task of .*new; a run without any is none"):
        remove_task(tmp_path / "new", "one", tmp_path / "none")


def test_a_folder_is_a_run_only_with_all_its_weights(
    lent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = RunFolder.save_checkpoint, []

    def watched(run: RunFolder, *arguments: Any, **more: Any) -> Path:
        seen.append(run.recipe_file.exists())
        if len(seen) == 3:
            raise KeyboardInterrupt
        return save(run, *arguments, **more)

    monkeypatch.setattr(RunFolder, "save_checkpoint", watched)
    with pytest.raises(KeyboardInterrupt):
        remove_task(lent, "two", tmp_path / "new")
    assert seen == [False] * 3
    with pytest.raises(RecipeError, match="so it is no run"):
        RunFolder.open(tmp_path / "new")


def test_a_scheme_that_needs_the_task_for_the_others_keeps_it(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old", sharing=f"{HERE}:Counting")
    with pytest.raises(RecipeError, match="two cannot be removed: with this sharing scheme and backbone it changes"):
        remove_task(old, "two", tmp_path / "new")
    assert not (tmp_path / "new").exists()
