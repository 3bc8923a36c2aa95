"""Every balancer that is offered trains two tasks with samples of their own."""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

TASKS = ("a", "b")
ENTRIES = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]
OFFERED: dict[str, str] = ENTRIES["mtframe.balancer"]


def built(name: str) -> Any:
    module, _, attribute = OFFERED[name].partition(":")
    cls = getattr(import_module(module), attribute)
    wanted = inspect.signature(cls).parameters
    wired = {"member": getattr(cls, "example", None), "tasks": TASKS}
    return cls(**{key: value for key, value in wired.items() if key in wanted})


def samples() -> dict[str, tuple[Tensor, Tensor]]:
    """Two linear regressions whose best shared features differ, one with targets ten times as large."""
    generator = torch.Generator().manual_seed(0)
    images = {task: torch.randn(32, 6, generator=generator) for task in TASKS}
    mixed = {task: torch.randn(6, 1, generator=generator) for task in TASKS}
    return {task: (images[task], images[task] @ mixed[task] * (10.0 if task == "b" else 1.0)) for task in TASKS}


def backward(balancer: Any, losses: dict[str, Tensor], shared: nn.Linear) -> None:
    """What the trainer makes of a balancer."""
    if callable(balancer):
        balancer(losses).backward()
        return
    rows = []
    for loss in losses.values():
        shared.zero_grad()
        loss.backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in shared.parameters()]))
    gradients, values = torch.stack(rows), torch.stack([loss.detach().double() for loss in losses.values()])
    if hasattr(balancer, "weigh"):
        wide = gradients.double()
        update = balancer.weigh(wide @ wide.T, values).to(gradients.dtype) @ gradients
    else:
        update = balancer.combine(gradients, values)
    for parameter, part in zip(
        shared.parameters(), update.split([p.numel() for p in shared.parameters()]), strict=True
    ):
        parameter.grad = part.view_as(parameter)


@pytest.mark.parametrize("name", OFFERED)
def test_it_learns_both_tasks(name: str) -> None:
    if name == "torchjd":
        pytest.importorskip("torchjd", reason="TorchJD is not installed")
        pytest.importorskip("quadprog", reason="TorchJD's UPGrad needs quadprog, which is not installed")
    torch.manual_seed(0)
    shared, heads = nn.Linear(6, 8), nn.ModuleDict({task: nn.Linear(8, 1) for task in TASKS})
    balancer, given = built(name), samples()
    own = list(balancer.parameters()) if isinstance(balancer, nn.Module) else []
    optimizer = torch.optim.Adam([*shared.parameters(), *heads.parameters(), *own], lr=0.05)
    first: dict[str, float] = {}
    for _ in range(150):
        optimizer.zero_grad()
        losses = {task: (heads[task](shared(x)) - y).square().mean() for task, (x, y) in given.items()}
        first = first or {task: loss.item() for task, loss in losses.items()}
        backward(balancer, losses, shared)
        optimizer.step()
    for task, loss in losses.items():
        assert loss.item() < 0.3 * first[task], f"{task}: {first[task]:.3g} -> {loss.item():.3g}"
    assert getattr(balancer, "failures", 0) == 0
