"""Every scheme, called from several threads: each gets what it gets alone, whatever the others ask for.

Threads wait for each other before each layer (`in_lockstep`): what a pass keeps on a module is then another's, for
certain, by the time that it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from schemes import SCHEMES, shaken, step_of
from torch import Tensor, nn

from mtframe.testing._lockstep import in_lockstep
from mtframe_timm.backbone import TimmBackbone
from test_gradients import Staged, assert_same

# Tasks of two sizes; c and d look at the images of a and b.
GROUPS = (("a", "c"), ("b", "d"))
LENDERS = {"a": {"c": "a"}, "b": {"d": "b"}}
SIZES = {"a": 32, "b": 48}

Call = tuple[dict[str, Tensor], dict[str, str]]


def call(task: str, count: int, seed: int, lenders: Mapping[str, str] | None = None) -> Call:
    """Images of one task, and who else looks at them."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, SIZES[task], SIZES[task], generator=generator)
    # Large images are brighter, so that statistics of the two sizes have little in common.
    return {task: pixels + 3 * (task == "b")}, dict(LENDERS[task] if lenders is None else lenders)


@torch.no_grad()
def trained(name: str, policy: str, backbone: nn.Module) -> Any:
    """A scheme whose weights and statistics have moved."""
    torch.manual_seed(0)
    scheme, options = SCHEMES[name]
    sharing = shaken(scheme(backbone, GROUPS, batchnorm=policy, **options)).train()
    for seed in range(3):
        for task in SIZES:
            sharing(*call(task, 4, seed))
    return sharing.eval()


@torch.no_grad()
def maps(sharing: nn.Module, asked: Call) -> dict[str, list[Tensor]]:
    return {task: list(found) for task, found in sharing(*asked).items()}


def check(sharing: nn.Module, calls: list[Call]) -> None:
    alone = [maps(sharing, asked) for asked in calls]
    at_once = in_lockstep(sharing, [partial(maps, sharing, asked) for asked in calls])
    for found, expected in zip(at_once, alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["per-task", "shared", "frozen"])
@pytest.mark.parametrize("name", SCHEMES)
def test_threads_get_what_each_gets_alone(name: str, policy: str) -> None:
    sharing = trained(name, policy, Staged(norm=nn.BatchNorm2d))
    # Of two sizes; of one size, but other numbers of images; of other images only.
    check(sharing, [call("a", 2, 10), call("b", 3, 11), call("a", 4, 12), call("b", 3, 13)])
    # Each task by another's images, which are not those of the task before.
    check(sharing, [call("a", 2, 14, {}), call("b", 2, 15, {})])


@pytest.mark.parametrize("name", SCHEMES)
def test_on_a_real_backbone(name: str) -> None:
    sharing = trained(name, "per-task", TimmBackbone("test_resnet", 48, pretrained=False))
    check(sharing, [call("a", 2, 10), call("b", 3, 11)])


def loss(sharing: nn.Module) -> Tensor:
    found = sharing(*call("a", 2, 10)).values()
    return torch.stack([each.square().mean() for of_task in found for each in of_task]).sum()


@pytest.mark.parametrize("name", SCHEMES)
def test_averaged_weights_predict_while_the_model_trains(name: str) -> None:
    model = trained(name, "per-task", Staged(norm=nn.BatchNorm2d))
    average, alone = deepcopy(model), deepcopy(model).train()
    asked = call("b", 3, 11)
    expected = maps(average, asked)
    loss(alone).backward()
    found, _ = in_lockstep(
        nn.ModuleList([model, average]), [partial(maps, average, asked), lambda: loss(model.train()).backward()]
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.state_dict(), alone.state_dict(), rtol=1e-5, atol=1e-6)
    for (key, parameter), own in zip(model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, own.grad, msg=key)


@pytest.mark.parametrize("name", SCHEMES)
def test_gradients_are_told_apart_while_another_model_predicts(name: str) -> None:
    """The other one says whose rows its passes hold, too."""
    step, sharing = step_of(name), trained(name, "per-task", Staged(norm=nn.BatchNorm2d))
    asked, expected = call("b", 3, 11), step.found()

    def predictions() -> list[dict[str, list[Tensor]]]:
        return [maps(sharing, asked) for _ in range(10)]

    found, several = in_lockstep(nn.ModuleList([step.model, sharing]), [step.found, predictions])
    assert step.fallbacks == []
    assert_same(found, expected)
    for one in several:
        torch.testing.assert_close(one, maps(sharing, asked), rtol=1e-5, atol=1e-6)
