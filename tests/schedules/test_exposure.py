"""How often images are seen: said before training, in every row of metrics.csv, and as it really was."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from command import mtframe
from mtframe.assembly import Assembly, observe
from mtframe.data import MixedBatches, Source
from mtframe.hooks import hookimpl
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.schedule import Epochs, Joint, Proportional, Temperature
from mtframe.training import Interrupted, Trainer
from mtframe.training._exposure import cautions
from small import Small
from toy import ToyData, ToyTransform, toy_recipe

HERE = str(Path(__file__).resolve())


class Stopper:
    """Ends the training early, or as Ctrl-C does."""

    def __init__(self, at: int, how: str) -> None:
        self.at, self.how = at, how

    @hookimpl
    def training_started(self, trainer: Any) -> None:
        self.trainer = trainer

    @hookimpl
    def step_ended(self, step: int) -> None:
        if step == self.at:
            self.trainer.stop("enough") if self.how == "early" else signal.raise_signal(signal.SIGINT)


def trainer_of(path: Path, stopper: Stopper | None = None, **train: Any) -> Trainer:
    """20 images in batches of 4, and 30."""
    recipe = Recipe.from_plain(toy_recipe(**train))
    assembly = Assembly(recipe)
    hooks = observe(recipe, strict=True)
    if stopper:
        hooks.register(stopper, "stopper")
    return Trainer(assembly, RunFolder(path).create(recipe, assembly.infos), hooks)


def described(path: Path) -> list[str]:
    """The log's lines on images, without times."""
    lines = (path / "log.txt").read_text(encoding="utf-8").splitlines()
    return [line.split(" ", 2)[2] for line in lines if "training images" in line or "looks at" in line]


def seen(path: Path) -> list[list[float]]:
    """Of each row, to three digits."""
    with (path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [[round(float(row[f"epochs_{task}"]), 3) for task in ("one", "two")] for row in csv.DictReader(file)]


def test_it_is_said_before_and_after_and_logged_between(tmp_path: Path) -> None:
    trainer_of(tmp_path / "run", steps=8, log_every=3, accumulate=2).fit()
    # 16 batches of 4 images: 64.
    assert described(tmp_path / "run") == [
        "INFO task one: 20 training images, each will be seen 3.2 times",
        "INFO task two: 30 training images, each will be seen 2.1 times",
        "INFO task one: 20 training images, each seen 3.2 times",
        "INFO task two: 30 training images, each seen 2.1 times",
    ]
    assert seen(tmp_path / "run") == [[1.2, 0.8], [2.4, 1.6], [3.2, 2.133]]
    (evaluation,) = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["evaluations"]
    assert evaluation["epochs"] == pytest.approx({"one": 3.2, "two": 64 / 30})


def test_what_is_logged_is_what_was_drawn(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", steps=11, schedule={"name": "temperature", "temperature": 2.0})
    drawn: dict[str, int] = {"one": 0, "two": 0}
    index = trainer.batches._index

    def count(source: Source, task: str, draw: int) -> int:
        drawn[task] += 1
        return index(source, task, draw)

    trainer.batches._index = count  # type: ignore[method-assign]
    trainer.fit()
    assert seen(tmp_path / "run")[-1] == [drawn["one"] / 20, round(drawn["two"] / 30, 3)]


def test_a_training_that_ended_early_says_what_really_was(tmp_path: Path) -> None:
    trainer_of(tmp_path / "run", Stopper(5, "early"), steps=100).fit()
    before, after = described(tmp_path / "run")[::2]
    assert "each will be seen 20.0 times" in before
    assert after.endswith("each seen 1.0 times")


def test_a_run_that_goes_on_says_what_all_of_it_showed(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        trainer_of(tmp_path / "run", Stopper(5, "Ctrl-C"), steps=15, log_every=5).fit()
    assert described(tmp_path / "run")[2].endswith("each seen 1.0 times")
    Trainer.resume(tmp_path / "run").fit()
    assert described(tmp_path / "run")[-2].endswith("each seen 3.0 times")
    assert seen(tmp_path / "run") == [[1.0, 0.667], [2.0, 1.333], [3.0, 2.0]]


class Labels(ToyData):
    """Knows the class of the toy's images."""

    def ids(self) -> list[str]:
        return [f"toy/{number}.jpg" for number in range(self.count)]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"label": torch.tensor(int(id.removeprefix("toy/").removesuffix(".jpg")) % 2)}


def borrowing(**train: Any) -> Recipe:
    """Two tasks on the 20 images of one."""
    plain = toy_recipe({"one": {}, "two": {"images": "one", "dataset": f"{HERE}:Labels"}}, **train)
    for field in ("transform", "size", "batch_size"):
        del plain["tasks"]["two"][field]
    return Recipe.from_plain(plain)


def test_a_task_on_borrowed_images_sees_what_their_task_sees() -> None:
    batches = MixedBatches(Assembly(borrowing()).sources(), seed=0)
    assert batches.epochs(10) == {"one": 2.0, "two": 2.0}


def test_a_task_on_borrowed_images_has_a_line_of_its_own(tmp_path: Path) -> None:
    recipe = borrowing(steps=8)
    assembly = Assembly(recipe)
    Trainer(assembly, RunFolder(tmp_path / "run").create(recipe, assembly.infos), observe(recipe, strict=True)).fit()
    assert described(tmp_path / "run") == [
        "INFO task one: 20 training images, each will be seen 1.6 times",
        "INFO task two: looks at the images of one, with a label of two or without, each will be seen 1.6 times",
        "INFO task one: 20 training images, each seen 1.6 times",
        "INFO task two: looks at the images of one, with a label of two or without, each seen 1.6 times",
    ]


def batches_of(schedule: str = "joint", **counts: int) -> MixedBatches:
    """Tasks of so many images, in batches of ten."""
    sources = {task: Source(ToyData("train", count=n), ToyTransform(16, True), 10) for task, n in counts.items()}
    made: dict[str, Any] = {
        "joint": Joint,
        "epochs": lambda lengths, every: Epochs(lengths),
        "proportional": lambda lengths, every: Proportional(lengths),
        "temperature": lambda lengths, every: Temperature(lengths, temperature=5.0),
    }
    return MixedBatches(sources, 0, made[schedule])


def test_100_000_images_beside_1_000() -> None:
    batches = batches_of(faces=1_000, objects=100_000)
    assert batches.epochs(9_600) == {"faces": 96.0, "objects": 0.96}
    assert cautions(batches, 9_600, "joint") == [
        "task objects: only 96.0% of its 100000 training images are seen; train.epochs=1 or more in place of "
        "train.steps shows each once, as may another train.schedule",
        "each image of task faces is seen 96.0 times, of task objects 0.96 times. If that is not meant: "
        "train.schedule=proportional shows all equally often, and temperature is between; so are a smaller "
        "tasks.faces.batch_size and tasks.faces.every=N",
    ]
    spread = batches_of("proportional", faces=1_000, objects=100_000)
    assert spread.epochs(10_100) == {"faces": 1.0, "objects": 1.0}
    assert cautions(spread, 10_100, "proportional") == []
    # (10 000 / 100)^(1/5) = 2.5 batches of objects to one of faces.
    warm = batches_of("temperature", faces=1_000, objects=100_000)
    steps = warm.schedule.steps_per_epoch
    assert warm.epochs(steps) == pytest.approx({"faces": 100 / 2.512, "objects": 1.0}, rel=1e-3)
    (said,) = cautions(warm, steps, "temperature")
    assert said.endswith("a train.schedule.temperature nearer to 1 shows them more alike")


def test_a_task_that_never_trains_is_named() -> None:
    (said,) = cautions(batches_of("epochs", first=100, last=100), 10, "epochs")
    assert said.startswith("task last: it never trains; train.epochs=1 or more in place of train.steps shows each once")
    assert cautions(batches_of(one=100, two=200), 20, "joint") == []


def test_the_terminal_and_the_log_say_it(small: Small, tmp_path: Path) -> None:
    result = mtframe("train", *small.parts, "train.steps=1", "train.evaluate_every=null", "--out", tmp_path / "run")
    said = "task faces: only 44.4% of its 9 training images are seen"
    assert f"warning: {said}" in result.out
    assert f"WARNING {said}" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


def test_what_the_warning_recommends_shows_each_image(small_run: Path, tmp_path: Path) -> None:
    recipe = small_run / "recipe.yaml"
    assert "in place of train.steps" in mtframe("train", recipe, "train.steps=1", "--out", tmp_path / "short").out
    result = mtframe("train", recipe, "train.epochs=1", "--out", tmp_path / "run")
    assert (result.code, "train.steps" in result.out) == (0, False)
    assert all(float(line.split()[-2]) >= 1 for line in described(tmp_path / "run"))
