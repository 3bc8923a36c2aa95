"""One step: what observers and the log see of its losses, and what it costs to see that they are finite."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mtframe.assembly import Assembly
from mtframe.errors import TrainingError
from mtframe.hooks import Hooks, hookimpl
from mtframe.recipe import Recipe
from mtframe.training import Trainer
from mtframe.training._finite import all_finite
from mtframe.training._terms import Terms, mean_terms
from toy import toy_recipe

TOY = str(Path(__file__).parents[1] / "toy.py")


class Losses:
    """Keeps what each step's losses were."""

    def __init__(self) -> None:
        self.kept: list[dict[str, dict[str, float]]] = []

    @hookimpl
    def step_ended(self, losses: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.kept.append({task: {name: float(value) for name, value in its.items()} for task, its in losses.items()})


def trainer_of(path: Path, plain: dict[str, Any], *observers: object) -> Trainer:
    hooks = Hooks(strict=True)
    for observer in observers:
        hooks.register(observer)
    return Trainer(Assembly(Recipe.from_plain(plain)), path, hooks)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Terms]:
    """The loss terms of every batch that is trained on."""
    from mtframe.training import _step

    found: list[Terms] = []
    whole = _step.one_pass

    def one_pass(*arguments: Any, **options: Any) -> Terms:
        found.append(whole(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(_step, "one_pass", one_pass)
    return found


@pytest.mark.parametrize("every", [1, 2])
def test_a_step_s_losses_are_the_means_over_the_batches_that_it_accumulates(
    tmp_path: Path, passes: list[Terms], every: int
) -> None:
    losses = Losses()
    plain = toy_recipe({"one": {}, "two": {"every": every}}, steps=3, accumulate=3)
    plain["hooks"] = ["csv-logger"]
    trainer = Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "run")
    trainer.hooks.register(losses)
    trainer.fit()
    assert len(passes) == 9
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, (kept, row) in enumerate(zip(losses.kept, rows, strict=True)):
        assert list(kept) == ["one", "two"]
        for task in kept:
            own = [
                float(terms[task]["cross_entropy"]) for terms in passes[3 * number : 3 * number + 3] if task in terms
            ]
            # With `every: 2`, batches 0, 2, 4, ... are of both tasks.
            assert len(own) == (3 if task == "one" or every == 1 else 2 - number % 2)
            assert kept[task]["cross_entropy"] == pytest.approx(sum(own) / len(own), rel=1e-6)
            assert float(row[f"{task}/cross_entropy"]) == pytest.approx(sum(own) / len(own), rel=1e-6)


def test_of_one_batch_the_losses_are_its_own(tmp_path: Path, passes: list[Terms]) -> None:
    losses = Losses()
    trainer_of(tmp_path / "run", toy_recipe(steps=2), losses).fit()
    assert losses.kept == [
        {task: {name: float(value) for name, value in named.items()} for task, named in terms.items()}
        for terms in passes
    ]


def test_means_are_taken_of_what_is_there_in_the_order_of_tasks() -> None:
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    found = mean_terms([{"b": {"x": one}}, {"a": {"y": two}, "b": {"x": two, "z": two}}], ("a", "b", "c"))
    assert list(found) == ["a", "b"]
    assert {task: {name: v.item() for name, v in its.items()} for task, its in found.items()} == {
        "a": {"y": 2.0}, "b": {"x": 1.5, "z": 2.0},
    }  # fmt: skip
    assert mean_terms([], ("a",)) == {}


def test_transforms_are_told_of_each_batch_how_much_of_the_training_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    trainer = trainer_of(tmp_path / "run", toy_recipe({"one": {}}, steps=2, accumulate=3))
    kind = type(trainer.batches.sources["one"].transform)
    monkeypatch.setattr(kind, "set_progress", lambda _, fraction: told.append(fraction), raising=False)
    trainer.fit()
    assert told == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


class Reads(TorchDispatchMode):
    """Counts how often a tensor's value is read, for which an accelerator has to be waited for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_device_is_waited_for_once_a_step(tmp_path: Path, accumulate: int) -> None:
    plain = toy_recipe(
        {name: {} for name in ("one", "two", "three")}, steps=9, accumulate=accumulate, log_every=100, ema=None
    )
    trainer = trainer_of(tmp_path / "run", plain)
    trainer.model.train()
    for _, group in zip(range(3), trainer.grouped_batches(), strict=False):
        with Reads() as reads:
            trainer.train_step(group)
        assert reads.count == 1


def test_finite_numbers_of_any_type_are_finite() -> None:
    values = [
        torch.tensor(1.0),
        torch.tensor([2.0]),
        torch.tensor(3.0, dtype=torch.bfloat16),
        torch.tensor(4.0).double(),
    ]
    assert all_finite(values)
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not all_finite([*values, torch.tensor(bad)])


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_loss_of_any_of_the_accumulated_batches_is_named_and_nothing_is_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    trainer = trainer_of(tmp_path / "run", toy_recipe(steps=4, accumulate=3))
    trainer.model.train()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    seen: list[int] = []
    whole = trainer.model.loss

    def loss(task: str, outputs: Any, targets: Any) -> dict[str, Tensor]:
        found = whole(task, outputs, targets)
        seen.append(len(seen))
        return {name: value * torch.nan for name, value in found.items()} if seen[-1] == 2 * bad + 1 else found

    monkeypatch.setattr(trainer.model, "loss", loss)
    with pytest.raises(
        TrainingError, match=r"^task two: loss 'cross_entropy' is nan at step 1\. Try a lower train\.lr"
    ):
        trainer.train_step(next(trainer.grouped_batches()))
    assert all(torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True))


def test_an_infinite_gradient_of_finite_losses_is_named_with_its_task(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", toy_recipe(steps=4, clip_grad=None))
    trainer.model.train()
    trainer.model.heads["two"].linear.bias.register_hook(lambda gradient: gradient * torch.inf)
    said = r"^the norm of the gradient of task two \(losses: one 0\.\d+, two 0\.\d+\) is (nan|inf) at step 1\."
    with pytest.raises(TrainingError, match=said):
        trainer.train_step(next(trainer.grouped_batches()))


class Raising:
    """Raises at a step."""

    @hookimpl
    def step_started(self, step: int) -> None:
        if step == 2:
            raise RuntimeError("not with me")


def test_an_essential_observer_ends_the_training_and_another_one_is_disabled(tmp_path: Path) -> None:
    plain = toy_recipe(steps=4)
    whole = Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "whole")
    whole.hooks.register(Raising(), "raising")
    whole.fit()
    assert (whole.step, whole.hooks.disabled) == (4, {"raising": "step_started raised RuntimeError: not with me"})
    ended = Trainer(Assembly(Recipe.from_plain(plain)), tmp_path / "ended")
    ended.essential.register(Raising(), "raising")
    with pytest.raises(RuntimeError, match="not with me"):
        ended.fit()
    assert ended.step == 2


class Started:
    """Looks at a step before it is trained."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[list[str]], float]] = []

    @hookimpl
    def training_started(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.weight = trainer.model.heads["one"].linear.weight

    @hookimpl
    def step_started(self, step: int, batches: Any) -> None:
        assert step == self.trainer.step
        assert self.weight.grad is None
        tasks = [list(by_task) for by_task in batches]
        self.seen.append((step, tasks, self.trainer.optimizer.param_groups[0]["lr"]))


def test_before_a_step_observers_see_its_batches_and_its_learning_rate(tmp_path: Path) -> None:
    started = Started()
    plain = toy_recipe({"one": {}, "two": {"every": 2}}, steps=3, accumulate=2, lr=0.1, warmup=0.5, min_lr=0.0)
    trainer = trainer_of(tmp_path / "run", plain, started)
    trainer.run_steps()
    assert [seen[:2] for seen in started.seen] == [(n, [["one", "two"], ["one"]]) for n in range(3)]
    assert started.seen[0][2] < started.seen[1][2] <= 0.1
    # Nothing but steps: no run.
    assert not (tmp_path / "run").exists()
    assert trainer.step == 3
