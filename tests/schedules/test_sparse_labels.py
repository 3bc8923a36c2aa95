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
from mtframe.data import Batch, Geometry, Sample
from mtframe.recipe import Recipe
from mtframe.run import RunFolder
from mtframe.training import Trainer
from mtframe.training._labelled import labelled
from toy import ToyData, toy_recipe

HERE = str(Path(__file__).resolve())


def batch(targets: dict[str, Tensor], **also: dict[str, Tensor]) -> Batch:
    geometry = Geometry(torch.ones(2, 2), torch.zeros(2, 2), torch.ones(2, 2).long())
    return Batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), targets, geometry, also=also)


def test_tasks_that_know_nothing_of_a_step_take_no_part_in_it() -> None:
    kinds = {"a": "label", "b": "labels", "c": "value", "d": "boxes", "e": "own", "f": "identity"}
    unknown, nan = {"label": torch.tensor([-1, -1])}, torch.full((2, 1), math.nan)
    some = {"labels": torch.tensor([[math.nan], [0.0]])}
    # Another task that knows the same images stands in; a negative number is known, and so is that there is no box.
    given = {
        "a": batch(unknown, b=some, c={"value": nan}),
        "d": batch({"boxes": torch.zeros(2, 0, 4), "labels": torch.zeros(2, 0)}),
        "e": batch({"anything": nan}),
        "f": batch(unknown),
    }
    kept = labelled(given, kinds)
    assert {task: (list(part.targets), list(part.also)) for task, part in kept.items()} == {
        "b": (["labels"], []), "d": (["boxes", "labels"], []), "e": (["anything"], []),
    }  # fmt: skip
    assert kept["b"].images is given["a"].images
    assert given["a"].also.keys() == {"b", "c"}
    assert labelled({"f": batch(unknown)}, kinds) == {}
    whole = {"a": batch({"label": torch.tensor([-1, 2])}, c={"value": torch.tensor([[-3.0], [math.nan]])})}
    assert labelled(whole, kinds)["a"].also.keys() == {"c"}


class Sparse(ToyData):
    """Knows the class of every fourth image only, its own as well as others'."""

    def target_of(self, id: str) -> dict[str, Tensor]:
        number = int(id.removeprefix("toy/").removesuffix(".jpg"))
        return {"label": torch.tensor(number // 4 % 2 if number % 4 == 0 else -1)}

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        sample.target = self.target_of(sample.id)
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
    return Trainer(assembly, RunFolder.create(path, recipe, assembly.infos))


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.parametrize("balancer", ["mgda", "uncertainty", "nash-mtl"])
def test_a_task_without_a_label_does_not_reach_the_balancer(tmp_path: Path, balancer: str, borrowed: bool) -> None:
    trainer = trainer_of(tmp_path / "run", balancer, borrowed=borrowed, steps=12)
    told: list[set[str]] = []
    moved: list[bool] = []
    weight = trainer.model.sharing.backbone.stem[0].weight
    step = trainer.optimizer.step

    def watch(*_: Any, **__: Any) -> None:
        moved.append(bool(weight.grad is not None and weight.grad.any()))
        step()

    trainer.optimizer.step = watch  # type: ignore[method-assign]
    call = trainer.hooks.call
    trainer.hooks.call = Recording(call, told)  # type: ignore[assignment]
    trainer.fit()
    assert {"full"} in told
    assert {"full", "sparse"} in told
    # The min-norm point of a gradient and 0 would be 0.
    assert all(moved)


class Full(Sparse):
    """Knows the class of every image."""

    def target_of(self, id: str) -> dict[str, Tensor]:
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
    trainer = Trainer(assembly, RunFolder.create(tmp_path / "run", recipe, assembly.infos))
    told: list[set[str]] = []
    trainer.hooks.call = Recording(trainer.hooks.call, told)  # type: ignore[assignment]
    passes: list[int] = []
    trainer.model.sharing.register_forward_pre_hook(
        lambda _, given: passes.append(sum(map(len, given[0].values()))) if trainer.model.training else None
    )
    trainer.fit()
    assert {frozenset(tasks) for tasks in told} == {
        frozenset({"full", "other"}),
        frozenset({"sparse", "full", "other"}),
    }
    # Whoever knows them, the images pass once: two of each.
    assert set(passes) == {4}


class Recording:
    """The hooks, of which it notes whose losses a step had."""

    def __init__(self, hooks: Any, told: list[set[str]]) -> None:
        self.hooks, self.told = hooks, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hooks, name)

    def step_ended(self, step: int, losses: Any) -> None:
        self.told.append(set(losses))
        self.hooks.step_ended(step=step, losses=losses)


def test_a_step_in_which_nothing_is_known_trains_nothing(tmp_path: Path) -> None:
    sparse = {"dataset": f"{HERE}:Sparse", "loss": "cross-entropy", "batch_size": 1}
    recipe = Recipe.from_plain(toy_recipe({"sparse": sparse}, steps=20, ema=None))
    assembly = Assembly(recipe)
    trainer = Trainer(assembly, RunFolder.create(tmp_path / "run", recipe, assembly.infos))
    weight = trainer.model.heads["sparse"].linear.weight
    kept: list[Tensor] = [weight.detach().clone()]
    told: list[set[str]] = []
    trainer.hooks.call = Recording(trainer.hooks.call, told)  # type: ignore[assignment]
    log = trainer._log_metrics

    def keep() -> None:
        kept.append(weight.detach().clone())
        log()

    trainer._log_metrics = keep  # type: ignore[method-assign]
    trainer.fit()
    changed = [not torch.equal(before, after) for before, after in pairwise(kept)]
    # Five of the 20 images are known.
    assert changed == [bool(tasks) for tasks in told]
    assert sum(changed) == 5
