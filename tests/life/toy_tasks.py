"""A run of two toy tasks, and presets that add another: named `tests/life/toy_tasks.py:Third` on the command line."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from command import Result, mtframe
from mtframe.inference import load_run
from mtframe.model import Network
from mtframe.training import Trainer
from mtframe.yaml import dump_yaml
from toy import ToyBackbone, ToyData, ToyLoss, toy_recipe

HERE = str(Path(__file__).resolve())
TOY = str(Path(__file__).resolve().parents[1] / "toy.py")
THIRD = f"three={HERE}:Third"


class Third:
    """The toy task once more."""

    dataset: ClassVar[dict[str, Any]] = {"name": f"{TOY}:ToyData", "count": 24}
    transform: ClassVar[str] = f"{TOY}:ToyTransform"
    head: ClassVar[str] = f"{TOY}:ToyHead"
    loss: ClassVar[str] = f"{TOY}:ToyLoss"
    metrics: ClassVar[tuple[str, ...]] = (f"{TOY}:ToyMetric",)
    size: ClassVar[int] = 32
    batch_size: ClassVar[int] = 4


class SteadyBackbone(ToyBackbone):
    """Without dropout: in training it gives what it gives in evaluation, but for BatchNorm."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__(width=width)
        self.body[3] = nn.Identity()


class NormedBackbone(SteadyBackbone):
    """A BatchNorm of it is called `bn1`."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__(width=width)
        self.bn1 = self.stem[1]
        self.stem[1] = nn.Identity()
        self.stages = (("stem", "bn1"), ("body",))

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.bn1(self.stem(images))
        return [stem, self.body(stem)]


class Named(ToyData):
    """Says of the toy's images whether their number is even."""

    def ids(self) -> list[str]:
        return [f"toy/{number}.jpg" for number in range(self.count)]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"label": torch.tensor(int(id.removeprefix("toy/").removesuffix(".jpg")) % 2)}


class Borrowing(Third):
    """A task that labels the images of another one."""

    dataset: ClassVar[dict[str, Any]] = {"name": f"{HERE}:Named"}


class Scaled(ToyLoss):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.scale * term for name, term in super().forward(outputs, targets).items()}


class Counting(Network):
    """A scheme of which every map depends on how many tasks there are."""

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, list[Tensor]]:
        count = sum(map(len, self.groups))
        return {task: [part * count for part in maps] for task, maps in super().forward(images, lenders).items()}


class Leaning(Network):
    """A scheme with a part that is there for two tasks only, and is no task's own, whatever it is called."""

    def __init__(self, backbone: nn.Module, groups: Sequence[Sequence[str]]) -> None:
        super().__init__(backbone, groups)
        if sum(map(len, groups)) == 2:
            self.more = nn.ModuleDict({"bn1": nn.Linear(1, 1, bias=False)})


class Vanishing(ToyData):
    """Is there as long as its root is."""

    def __init__(self, split: str, *, root: Path, count: int = 20) -> None:
        from mtframe.errors import RecipeError

        if not root.exists():
            raise RecipeError(f"root: no folder {str(root)!r}")
        super().__init__(split, count=count)


class Trained(Protocol):
    """Runs of two tasks that are only read, each trained once (see `conftest.py`)."""

    def __call__(self, sizes: tuple[int, int] = (32, 32), sharing: str = "network", backbone: str = "") -> Path: ...


def train_two(
    out: Path, *, sizes: tuple[int, int] = (32, 32), two: Mapping[str, Any] | None = None, seed: int = 0, **change: Any
) -> Path:
    """Trains tasks `one` and `two` through the command line, with all that moves weights and statistics."""
    data = {"dataset": {"name": f"{TOY}:ToyData", "count": 30}}
    tasks = {"one": {"size": sizes[0]}, "two": {"size": sizes[1], **(two or data)}}
    file = out.with_suffix(".yaml")
    plain = toy_recipe(tasks, steps=6, ema=0.9, weight_decay=0.1, lr=0.01, seed=seed) | change
    if "images" in tasks["two"]:
        for field in ("transform", "size", "batch_size"):
            del plain["tasks"]["two"][field]
    file.write_text(dump_yaml(plain), encoding="utf-8")
    done("train", file, "--out", out)
    return out


def trace(run: Path) -> list[dict[str, str]]:
    """What a run has logged of its losses."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [
            {key: value for key, value in row.items() if key != "images_per_second"} for row in csv.DictReader(file)
        ]


def stop_at(trainer: Trainer, step: int) -> None:
    """Presses Ctrl-C after a step."""
    train_step = trainer.train_step

    def stopping(group: Any) -> None:
        train_step(group)
        if trainer.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    trainer.train_step = stopping  # type: ignore[method-assign]


def done(*arguments: object) -> Result:
    """A call that ends well."""
    result = mtframe(*arguments)
    assert (result.code, result.err) == (0, ""), result
    return result


def outputs(run: Path, tasks: Mapping[str, int], checkpoint: str = "best") -> dict[str, dict[str, Tensor]]:
    """What a run's model gives for noise of these sizes, by task."""
    model = load_run(run, checkpoint).model
    generator = torch.Generator().manual_seed(1)
    given = {
        task: torch.randint(256, (3, 3, size, size), generator=generator, dtype=torch.uint8)
        for task, size in tasks.items()
    }
    with torch.no_grad():
        return {task: model({task: images})[task] for task, images in given.items()}


def same(one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Mapping[str, Tensor]]) -> bool:
    """Whether outputs are equal, bit by bit."""
    return all(torch.equal(other[task][name], value) for task, its in one.items() for name, value in its.items())
