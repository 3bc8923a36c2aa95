"""A task that knows none of a step's images takes no part in the step."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import Batch, DataInfo, Inputs, Placement, Sample, Viewer
from mtframe.hooks import hookimpl
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import ModelInputs, Trainer
from mtframe_classification.targets import Label, Labels, Value
from mtframe_detection.boxes import Boxes
from toy import ToyData, toy_recipe

HERE = str(Path(__file__).resolve())


def viewed(kind: type, name: str, classes: tuple[str, ...], *labels: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """What a task of a kind of target knows of inputs with these labels."""
    places = [(Placement.scaled((4, 4), (4, 4), (1.0, 1.0), sample=number),) for number in range(len(labels))]
    inputs = Inputs(torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8), places)
    return Viewer(kind(DataInfo(name, classes))).collated(labels, inputs)


def test_a_batch_of_which_nothing_is_known_has_no_targets() -> None:
    two = ("x", "y")
    assert viewed(Label, "label", two, {"label": torch.tensor(-1)}, {"label": torch.tensor(-1)}) is None
    some = viewed(Label, "label", two, {"label": torch.tensor(-1)}, {"label": torch.tensor(1)})
    assert some is not None
    assert some["label"].tolist() == [-1, 1]
    # A label that is not there is known, a negative number too, and so is that there is no box.
    assert viewed(Labels, "labels", ("x",), {"labels": torch.tensor([math.nan])}) is None
    assert viewed(Labels, "labels", two, {"labels": torch.tensor([math.nan, 0.0])}) is not None
    assert viewed(Value, "value", ("x",), {"value": torch.tensor([math.nan])}) is None
    assert viewed(Value, "value", ("x",), {"value": torch.tensor([-3.0])}) is not None
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "crowd": torch.zeros(0).bool()}
    assert viewed(Boxes, "boxes", two, nothing) is not None


def test_another_task_that_knows_the_images_stands_in_for_one_that_does_not() -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    known = {"label": torch.tensor([0, 1])}
    given = {"a": Batch(images, {"b": known, "c": known}), "d": Batch(images + 1, {"d": known})}
    inputs = ModelInputs.of(given)
    assert {task: int(pixels.max()) for task, pixels in inputs.images.items()} == {"b": 0, "d": 1}
    assert inputs.lenders == {"c": "b"}
    assert list(inputs.targets) == ["b", "c", "d"]


class Sparse(ToyData):
    """Knows the class of every fourth image only, its own as well as others'."""

    def ids(self) -> list[str]:
        return [f"toy/{number}.jpg" for number in range(self.count)]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        number = int(id.removeprefix("toy/").removesuffix(".jpg"))
        return {"label": torch.tensor(number // 4 % 2 if number % 4 == 0 else -1)}

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        sample.target = self.target_of(sample.id, sample.size)
        return sample


def trainer_of(path: Path, balancer: str, *, borrowed: bool, **train: Any) -> Trainer:
    """Task `full` knows all of its images, task `sparse` few of the same or of its own, two a step."""
    sparse: dict[str, Any] = {"dataset": f"{HERE}:Sparse", "loss": "cross-entropy", "batch_size": 2}
    plain = toy_recipe({"full": {"batch_size": 2}, "sparse": sparse}, clip_grad=None, **train)
    if borrowed:
        plain["tasks"]["sparse"]["images"] = "full"
        for field in ("transform", "size", "batch_size"):
            del plain["tasks"]["sparse"][field]
    recipe = Recipe.from_plain({**plain, "balancer": balancer})
    assembly = Assembly(recipe)
    return Trainer(assembly, RunFolder(path).create(recipe, assembly.infos))


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("balancer", ["mgda", "uncertainty", "nash-mtl"])
def test_a_task_without_a_label_does_not_reach_the_balancer(tmp_path: Path, balancer: str, borrowed: bool) -> None:
    trainer = trainer_of(tmp_path / "run", balancer, borrowed=borrowed, steps=12)
    trained: list[set[str]] = []
    moved: list[bool] = []
    weight = trainer.model.sharing.backbone.stem[0].weight
    step = trainer.optimizer.step

    def watch(*_: Any, **__: Any) -> None:
        moved.append(bool(weight.grad is not None and weight.grad.any()))
        step()

    trainer.optimizer.step = watch  # type: ignore[method-assign]
    trainer.hooks.register(Recording(trained))
    trainer.fit()
    assert {"full"} in trained
    assert {"full", "sparse"} in trained
    # The min-norm point of a gradient and 0 would be 0.
    assert all(moved)


class Full(Sparse):
    """Knows the class of every image."""

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"label": torch.tensor(int(id.removeprefix("toy/").removesuffix(".jpg")) % 2)}


@pytest.mark.parametrize("sharing", ["network", {"name": "layers", "shared": 1}])
@pytest.mark.parametrize("balancer", ["sum", "mgda"])
def test_a_task_that_knows_another_ones_images_stands_in_for_it(tmp_path: Path, balancer: str, sharing: Any) -> None:
    tasks: dict[str, Any] = {"sparse": {"dataset": f"{HERE}:Sparse", "loss": "cross-entropy", "batch_size": 2}}
    tasks |= {"full": {"dataset": f"{HERE}:Full", "images": "sparse"}, "other": {"batch_size": 2}}
    plain = toy_recipe(tasks, steps=12)
    for field in ("transform", "size", "batch_size"):
        del plain["tasks"]["full"][field]
    recipe = Recipe.from_plain({**plain, "balancer": balancer, "sharing": sharing})
    assembly = Assembly(recipe)
    trainer = Trainer(assembly, RunFolder(tmp_path / "run").create(recipe, assembly.infos))
    trained: list[set[str]] = []
    trainer.hooks.register(Recording(trained))
    passes: list[int] = []
    trainer.model.sharing.register_forward_pre_hook(
        lambda _, given: passes.append(sum(map(len, given[0].values()))) if trainer.model.training else None
    )
    trainer.fit()
    assert {frozenset(tasks) for tasks in trained} == {
        frozenset({"full", "other"}),
        frozenset({"sparse", "full", "other"}),
    }
    # Whoever knows them, the images pass once: two of each.
    assert set(passes) == {4}


class Recording:
    """Notes whose losses a step had."""

    def __init__(self, trained: list[set[str]]) -> None:
        self.trained = trained

    @hookimpl
    def step_ended(self, losses: Any) -> None:
        self.trained.append(set(losses))


def test_a_step_in_which_nothing_is_known_trains_nothing(tmp_path: Path) -> None:
    sparse = {"dataset": f"{HERE}:Sparse", "loss": "cross-entropy", "batch_size": 1}
    recipe = Recipe.from_plain(toy_recipe({"sparse": sparse}, steps=20, ema=None))
    assembly = Assembly(recipe)
    trainer = Trainer(assembly, RunFolder(tmp_path / "run").create(recipe, assembly.infos))
    weight = trainer.model.heads["sparse"].linear.weight
    kept: list[Tensor] = [weight.detach().clone()]
    trained: list[set[str]] = []
    trainer.hooks.register(Recording(trained))
    trainer.hooks.register(Keeping(weight, kept))
    trainer.fit()
    changed = [not torch.equal(before, after) for before, after in pairwise(kept)]
    # Five of the 20 images are known.
    assert changed == [bool(tasks) for tasks in trained]
    assert sum(changed) == 5


class Keeping:
    """Copies a weight after each step."""

    def __init__(self, weight: Tensor, kept: list[Tensor]) -> None:
        self.weight, self.kept = weight, kept

    @hookimpl
    def step_ended(self) -> None:
        self.kept.append(self.weight.detach().clone())
