"""Images that weights have learned from are recognised by content: in other tasks, in runs before, in other folders."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import mtframe
from mtframe.assembly import Assembly
from mtframe.cli import _work
from mtframe.data import content_marks
from mtframe.errors import CheckpointError
from mtframe.inference import load_run
from mtframe.recipe import Recipe
from mtframe.run import read_learned, write_learned
from mtframe.survey import Found
from mtframe.training import Trainer, remove_task
from toy import toy_recipe


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pictures(root: Path, train: int, val: int, first: int) -> Path:
    """So many pictures of two classes for each split, numbered on from the first."""
    for split, number in (("train", train), ("val", val)):
        for place in range(number):
            picture(root / split / ("cat" if place % 2 else "dog") / f"{split}{place}.png", first + place)
        first += number
    return root


def task(root: Path) -> dict[str, Any]:
    return {"dataset": {"name": "image-folder", "root": str(root)}}


def assembled(tasks: dict[str, Path], **train: Any) -> Assembly:
    return Assembly(Recipe.from_plain(toy_recipe({name: task(root) for name, root in tasks.items()}, steps=1, **train)))


def elsewhere(trainer: Trainer) -> list[Found]:
    """What is found of images that were learned elsewhere."""
    found = [found for survey in trainer.surveys for found in survey.found]
    return [one for one in found if one.finding.name == "learned-elsewhere"]


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return pictures(tmp_path / "animals", 4, 4, 0)


@pytest.fixture
def others(tmp_path: Path, animals: Path) -> Path:
    """Of its own, but for one picture of the animals' validation, under another name, to train on."""
    root = pictures(tmp_path / "others", 4, 4, 100)
    shutil.copy(animals / "val" / "cat" / "val1.png", root / "train" / "dog" / "elsewhere.png")
    return root


def test_a_mark_is_of_content_and_not_of_the_name(tmp_path: Path) -> None:
    small = picture(tmp_path / "a.png", 0)
    large = tmp_path / "large.bmp"
    content = bytearray(np.random.default_rng(0).bytes(200_000))
    large.write_bytes(content)
    content[-1] ^= 1
    (tmp_path / "changed.bmp").write_bytes(content)
    copies = [Path(shutil.copy(file, tmp_path / f"copy-{file.name}")) for file in (small, large)]
    (tmp_path / "empty.png").touch()
    marks = content_marks([small, large, *copies, tmp_path / "changed.bmp", tmp_path / "empty.png", tmp_path / "none"])
    assert marks.dtype == np.int64
    assert marks[:2].tolist() == marks[2:4].tolist()
    assert len({*marks[:2].tolist(), int(marks[4])}) == 3
    assert marks[5:].tolist() == [0, 0]
    assert content_marks([]).shape == (0,)


def test_images_that_another_task_trains_on_are_found(
    tmp_path: Path, animals: Path, others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(assembled({"a": animals, "b": others}), tmp_path / "run")
    (found,) = elsewhere(trainer)
    assert found.line() == (
        "a, val: 1 of the 4 images of val are in the training data of task b (image-folder), by content "
        f"(e.g. {animals}/val/cat/val1.png) [learned-elsewhere]"
    )
    monkeypatch.chdir(tmp_path)
    recipe = toy_recipe({"a": task(animals), "b": task(others)}, steps=1)
    Path("recipe.yaml").write_text(Recipe.from_plain(recipe).to_yaml(), encoding="utf-8")
    checked = mtframe("data", "check", "recipe.yaml")
    assert checked.code == 0, checked
    assert f"warning: {found.line()}" in checked.out
    assert len(re.findall("learned-elsewhere", checked.out)) == 1


def test_evaluation_says_what_was_learned(tmp_path: Path, animals: Path, others: Path) -> None:
    Trainer(assembled({"a": animals, "b": others}), tmp_path / "run").fit()
    predictor = load_run(tmp_path / "run")
    little = "the score says little about other images"
    assert predictor.evaluate("a").notes[-1] == (
        f"1 of the 4 images of val are in the training data of task b (image-folder), by content, as "
        f"{animals}/val/cat/val1.png: {little}"
    )
    assert not [note for note in predictor.evaluate("b").notes if little in note]
    # The same pictures in another folder, under other names.
    (tmp_path / "again" / "val").mkdir(parents=True)
    for number, file in enumerate(sorted((animals / "train").rglob("*.png"))):
        folder = tmp_path / "again" / "val" / file.parent.name
        folder.mkdir(exist_ok=True)
        shutil.copy(file, folder / f"new{number}.png")
    elsewhere = [f"tasks.a.dataset.root={tmp_path / 'again'}", "tasks.a.dataset.classes=[cat, dog]"]
    result = mtframe("evaluate", tmp_path / "run", "-t", "a", *elsewhere)
    assert result.code == 0, result
    said = " ".join(result.out.split())
    assert "a: 4 of the 4 images of val are in the training data of task a (image-folder), by content" in said


def test_that_many_images_are_read_is_said(tmp_path: Path, animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(
        Recipe.from_plain(toy_recipe({"a": task(animals)}, steps=1)).to_yaml(), encoding="utf-8"
    )
    said = "reading some kilobytes of each of 4 images, by which the run recognises them later\n"
    assert said not in mtframe("train", "recipe.yaml", "--out", "few").out
    monkeypatch.setattr(_work, "_MANY", 3)
    result = mtframe("train", "recipe.yaml", "--out", "many")
    assert result.code == 0, result
    assert said in result.out
    assert said not in mtframe("train", "--resume", "many", "train.steps=2").out


def test_runs_remember_the_runs_they_come_from(tmp_path: Path, animals: Path, others: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    Trainer(assembled({"b": others}), first).fit()
    trainer = Trainer(assembled({"a": animals}, start=str(first)), second)
    (found,) = elsewhere(trainer)
    assert f"1 of the 4 images of val are in the training data of {first}: task b (image-folder)" in found.line()
    trainer.fit()
    # Even where that is gone.
    shutil.rmtree(first)
    assert set(read_learned(second) or ()) == {"task a (image-folder)", f"{first}: task b (image-folder)"}
    Trainer(assembled({"a": animals, "b": others}), tmp_path / "both").fit()
    less = remove_task(tmp_path / "both", "b", tmp_path / "less")
    assert set(read_learned(less.path) or ()) == {"task a (image-folder)", "task b (image-folder)"}
    assert any("task b (image-folder)" in note for note in load_run(less.path).evaluate("a").notes)


def test_weights_of_no_run_are_said_not_to_be_known(tmp_path: Path, animals: Path) -> None:
    Trainer(assembled({"a": animals}), tmp_path / "first").fit()
    file = tmp_path / "given.safetensors"
    shutil.copy(tmp_path / "first/checkpoints/best/weights.safetensors", file)
    Trainer(assembled({"a": animals}, start=str(file)), tmp_path / "run").fit()
    notes = load_run(tmp_path / "run").evaluate("a").notes
    assert notes[-1] == f"whether {file} has learned from images of this split is not known"


def test_what_is_not_trained_has_learned_nothing(tmp_path: Path, animals: Path) -> None:
    recipe = toy_recipe({"a": task(animals)})
    recipe["train"]["steps"] = 0
    assert Trainer(Assembly(Recipe.from_plain(recipe)), tmp_path / "run").learned == {}


def test_marks_are_kept_once_each_and_damage_is_told(tmp_path: Path) -> None:
    assert read_learned(tmp_path) is None
    write_learned(tmp_path, {"task a": np.array([5, -3, 5]), "runs/gone": np.zeros(0, np.int64)})
    found = read_learned(tmp_path)
    assert found is not None
    assert {where: marks.tolist() for where, marks in found.items()} == {"task a": [-3, 5], "runs/gone": []}
    file = tmp_path / "images.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"images\.safetensors: cannot be read as marks of images"):
        read_learned(tmp_path)
    write_learned(tmp_path, {"task a": np.array([0.5])})
    with pytest.raises(CheckpointError, match="'task a': expected a row of 64-bit numbers"):
        read_learned(tmp_path)
