"""A run without one of its tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_tasks import HERE, THIRD, Trained, done, outputs, same, train_two

from command import mtframe
from mtframe.errors import RecipeError
from mtframe.run import RunFolder
from mtframe.training import remove_task


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
    assert f"made of {old} without its task {goes}" in run.log_file.read_text()
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
    assert (result.code, way in result.err) == (1, True)
    assert "sharing: 14 of 14" in done(*way.split()[1:], "--out", tmp_path / "further").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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


def test_a_scheme_that_needs_the_task_for_the_others_keeps_it(tmp_path: Path) -> None:
    old = train_two(tmp_path / "old", sharing=f"{HERE}:Counting")
    with pytest.raises(RecipeError, match="two cannot be removed: with this sharing scheme and backbone it changes"):
        remove_task(old, "two", tmp_path / "new")
    assert not (tmp_path / "new").exists()
