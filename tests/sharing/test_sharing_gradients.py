"""Gradients through every sharing scheme, against autograd in float64, and a step of each with every balancer."""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from schemes import SCHEMES, ChannelsLast, step_of

from mtframe.data import Batch
from mtframe.training import forward_backward
from mtframe_timm.backbone import TimmBackbone
from test_gradients import TASKS, Step, Weigh, assert_same, engine_step

ENTRIES = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]
BALANCERS: dict[str, str] = ENTRIES["mtframe.balancer"]

schemes = pytest.mark.parametrize("name", SCHEMES)


def balancer_of(name: str, tasks: tuple[str, ...]) -> Any:
    module, _, attribute = BALANCERS[name].partition(":")
    cls = getattr(import_module(module), attribute)
    wired = {"member": getattr(cls, "example", None), "tasks": tasks}
    return cls(**{key: value for key, value in wired.items() if key in inspect.signature(cls).parameters})


def test_every_scheme_is_tried() -> None:
    assert set(SCHEMES) == set(ENTRIES["mtframe.sharing"])


@schemes
@pytest.mark.parametrize("lenders", [{}, {"people": "objects"}], ids=["own", "lenders"])
def test_rows_tell_each_tasks_gradient_apart(name: str, lenders: dict[str, str]) -> None:
    step = step_of(name, lenders=lenders)
    expected = step.expected()
    assert expected["faces"]
    assert_same(step.found(), expected)
    assert step.fallbacks == []


# Maps laid out (B, C, H, W), (B, N, C) and (B, H, W, C); BatchNorm with fixed statistics mixes no rows.
@pytest.mark.parametrize("name", ["cross-stitch", "adapters", "film"])
@pytest.mark.parametrize("member", ["test_resnet", "test_vit", "channels last"])
def test_rows_tell_tasks_apart_between_the_stages_of_other_backbones(name: str, member: str) -> None:
    backbone = ChannelsLast() if member == "channels last" else TimmBackbone(member, 32, pretrained=False)
    step = step_of(name, backbone, batchnorm="frozen")
    assert_same(step.found(), step.expected(), 1e-9)
    assert step.fallbacks == []


@schemes
def test_what_is_a_tasks_own_keeps_the_gradient_of_its_own_loss(name: str) -> None:
    step = step_of(name, lenders={"people": "objects"})
    expected, shared = step.expected(), {f"sharing.{name}" for name in step.shared}
    sum(step.losses().values()).backward()
    own = {n: p.grad.clone() for n, p in step.model.named_parameters() if n not in shared and p.grad is not None}
    step.model.zero_grad()
    gradients = engine_step(step, Weigh(0.5, 2.0, 3.0, 4.0))
    weights = dict(zip(step.model.tasks, (0.5, 2.0, 3.0, 4.0), strict=True))
    for parameter in shared:
        wanted = sum(weight * expected[t][parameter.removeprefix("sharing.")] for t, weight in weights.items())
        torch.testing.assert_close(gradients[parameter], wanted, rtol=1e-9, atol=1e-12)
    for parameter, gradient in own.items():
        torch.testing.assert_close(gradients[parameter], gradient)


@schemes
@pytest.mark.parametrize("balancer", ["pcgrad", "upgrad", "graddrop"])
def test_a_balancer_of_gradients_gets_what_autograd_finds(name: str, balancer: str) -> None:
    step = step_of(name)
    expected = step.expected()
    rows = torch.stack([torch.cat([g.flatten() for g in expected[task].values()]) for task in TASKS])
    losses = torch.stack(list(step.losses().values())).detach()
    found, alone = balancer_of(balancer, TASKS), balancer_of(balancer, TASKS)
    alone.present = TASKS
    torch.manual_seed(1)
    wanted = alone.combine(rows, losses) if hasattr(alone, "combine") else alone.weigh(rows @ rows.T, losses) @ rows
    gradients = engine_step(step, found)
    got = torch.cat([gradients[f"sharing.{parameter}"].flatten() for parameter in step.shared])
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)


def batches_of(step: Step) -> dict[str, Batch]:
    found = {}
    for task, pixels in step.images.items():
        found[task] = Batch(pixels, {task: step.targets[task]})
    return found


@schemes
def test_it_trains_with_every_balancer(name: str) -> None:
    step = step_of(name, double=False)
    model, batches = step.model, batches_of(step)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for balancer in BALANCERS:
        model.load_state_dict(before)
        model.zero_grad()
        torch.manual_seed(1)
        built = balancer_of(balancer, TASKS)
        forward_backward(model, batches, built, precision="bf16")
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()), balancer
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        for parameter in step.shared:
            moved = not torch.equal(model.get_parameter(f"sharing.{parameter}"), before[f"sharing.{parameter}"])
            assert moved, f"{balancer}: {parameter} has not moved"


def test_a_frozen_trunk_leaves_nothing_to_balance() -> None:
    step = step_of("film", trunk="frozen")
    assert step.shared == {}
    balancer = Weigh()
    gradients = engine_step(step, balancer)
    assert not hasattr(balancer, "gram")
    assert all(gradients[name] is None for name in gradients if name.startswith("sharing.inserted.network"))
    assert all(gradients[f"sharing.inserted.tasks.{task}.0.gamma"].any() for task in TASKS)


def test_joint_batchnorm_keeps_one_pass() -> None:
    step = step_of("cross-stitch", TimmBackbone("test_resnet", 32, pretrained=False))
    step.found()
    assert step.fallbacks == []
