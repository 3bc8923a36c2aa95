"""What a model costs before it is trained: counted by hand on a small one, and as timm counts a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import timm
import torch
from schemes import SCHEMES
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from mtframe.kinds import FeatureSpec
from mtframe.model import MultiTaskModel, cost_of
from mtframe_timm.backbone import TimmBackbone

# Of the backbone below: 3×8×3×3 + 8 and 8×4×3×3 + 4 parameters; multiplications for an image of 16 pixels.
STEM, BODY = 224, 292
STEM_MACS, BODY_MACS = 8 * 27 * 8 * 8, 4 * 72 * 4 * 4


class Two(nn.Module):
    """Two convolutions of stride 2, one a stage."""

    stages = (("stem",), ("body",))
    features = (FeatureSpec("stem", 8, 2), FeatureSpec("body", 4, 4))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.body = nn.Conv2d(8, 4, 3, 2, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = self.stem(images)
        return [stem, self.body(stem)]


class Head(nn.Module):
    """Numbers of the last map's mean."""

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, values)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"values": self.linear(maps[-1].mean((2, 3))), "places": torch.zeros(1, dtype=torch.long)}


class Centres(nn.Module):
    """A loss with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(10))

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {}


def model_of(sharing: nn.Module, tasks: Sequence[str]) -> MultiTaskModel:
    channels = sharing.features[-1].channels
    heads = {task: Head(channels, number + 1) for number, task in enumerate(tasks)}
    losses = {task: Centres() for task in tasks}
    return MultiTaskModel(sharing, heads, losses, mean=(0.5,) * 3, std=(0.5,) * 3)


def cost(name: str, sizes: Mapping[str, int], **options: Any) -> Any:
    groups: dict[int, list[str]] = {}
    for task, size in sizes.items():
        groups.setdefault(size, []).append(task)
    scheme, own = SCHEMES[name]
    sharing = scheme(Two(), tuple(map(tuple, groups.values())), **own, **options)
    return cost_of(model_of(sharing, list(sizes)), sizes, [(group, size) for size, group in groups.items()])


def test_one_network_for_all() -> None:
    found = cost("network", {"a": 16, "b": 16})
    a, b = found.tasks.values()
    assert (a.shared, a.own, a.head, a.loss, a.total) == (STEM + BODY, 0, 5, 10, STEM + BODY + 5)
    assert (b.shared, b.own, b.head) == (STEM + BODY, 0, 10)
    assert found.parameters == found.trained == STEM + BODY + 15
    macs = STEM_MACS + BODY_MACS
    assert (a.flops, b.flops) == (2 * (macs + 4), 2 * (macs + 8))
    # One pass through the backbone answers both.
    assert sum(found.passes) == 2 * (macs + 4 + 8)


def test_images_of_other_sizes_take_passes_of_their_own() -> None:
    found = cost("network", {"a": 16, "b": 32, "c": 16})
    assert found.tasks["b"].flops == 2 * (4 * (STEM_MACS + BODY_MACS) + 8)
    assert sum(found.passes) == 2 * (5 * (STEM_MACS + BODY_MACS) + 4 + 8 + 12)


def test_layers_of_its_own() -> None:
    found = cost("layers", {"a": 16, "b": 16})
    assert (found.tasks["a"].shared, found.tasks["a"].own) == (STEM, BODY)
    assert found.parameters == STEM + 2 * BODY + 15
    assert sum(found.passes) == 2 * (STEM_MACS + 2 * BODY_MACS + 4 + 8)


def test_cost_of_three_cross_stitch_columns() -> None:
    found = cost("cross-stitch", {"a": 16, "b": 16, "c": 16})
    a = found.tasks["a"]
    # Units after both stages; a row of the last one is its column's.
    assert (a.shared, a.own) == (3 * (STEM + BODY) + 3 * 3, 3)
    assert a.flops == 2 * (3 * (STEM_MACS + BODY_MACS) + 4)
    assert sum(found.passes) == 2 * (3 * (STEM_MACS + BODY_MACS) + 4 + 8 + 12)


def test_attention_of_its_own() -> None:
    found = cost("mtan", {"a": 16, "b": 16})
    a = found.tasks["a"]
    # Masks of 8 channels inside with GroupNorm, and the shared convolution to the next level's channels.
    first, second, onward = 8 * 8 + 16 + 8 * 8 + 16, 8 * 8 + 16 + 8 * 4 + 8, 9 * 8 * 4 + 8
    assert (a.shared, a.own) == (STEM + BODY + onward, first + second)
    masks = (8 * 8 + 8 * 8) * 64 + (8 * 8 + 8 * 4) * 16 + 9 * 8 * 4 * 64
    assert a.flops == 2 * (STEM_MACS + BODY_MACS + masks + 4)


def test_adapters_with_a_frozen_trunk() -> None:
    found = cost("adapters", {"a": 16, "b": 16}, width=0.5, trunk="frozen")
    a = found.tasks["a"]
    first, second = (8 * 4 + 4 + 4 * 8 + 8), (4 * 4 + 4 + 4 * 4 + 4)
    assert (a.shared, a.own) == (STEM + BODY, first + second)
    assert found.trained == found.parameters - STEM - BODY
    adapters = 2 * 8 * 4 * 64 + 2 * 4 * 4 * 16
    assert a.flops == 2 * (STEM_MACS + BODY_MACS + adapters + 4)
    # A second task on the same image is a second pass.
    assert sum(found.passes) == a.flops + found.tasks["b"].flops


def test_scales_and_shifts() -> None:
    assert cost("film", {"a": 16, "b": 16}).tasks["a"].own == 2 * 8 + 2 * 4


def test_experts_that_a_head_does_not_look_at_are_no_cost_of_its_task() -> None:
    found = cost("mmoe", {"a": 16, "b": 16})
    # The head takes the last level: its two experts, and the gate.
    assert found.tasks["a"].shared == STEM + BODY + 2 * (9 * 4 * 4 + 8)
    assert found.tasks["a"].own == 2 * 4
    assert found.parameters == STEM + BODY + 2 * (9 * 4 * 4 + 8 + 9 * 8 * 8 + 16) + 2 * 8 + 15


def test_resnet18_is_as_large_as_timm_says() -> None:
    scheme, _ = SCHEMES["network"]
    sharing = scheme(TimmBackbone("resnet18", 224, pretrained=False), (("a", "b"),))
    found = cost_of(model_of(sharing, ("a", "b")), {"a": 224, "b": 224})
    whole = timm.create_model("resnet18")
    assert found.tasks["a"].shared == sum(p.numel() for p in whole.parameters()) - 1000 * 513 == 11_176_512
    # torchvision counts multiplications of the whole model, of which the classifier has half a million.
    published = ResNet18_Weights.DEFAULT.meta["_ops"]
    assert found.tasks["a"].flops / 2e9 == pytest.approx(published - 0.0005, abs=0.0005)


def test_a_model_is_as_it_was_and_one_that_looks_at_values_is_counted_too() -> None:
    class Looking(Two):
        def forward(self, images: Tensor) -> list[Tensor]:
            assert images.sum().item() is not None
            return super().forward(images)

    scheme, _ = SCHEMES["network"]
    model = model_of(scheme(Looking(), (("a", "b"),)), ("a", "b")).train()
    model.sharing.backbone.stem.weight.requires_grad_(False)
    found = cost_of(model, {"a": 16, "b": 16})
    assert found.tasks["a"].shared == STEM + BODY
    assert found.trained == found.parameters - (STEM - 8)
    assert model.training
    assert not model.sharing.backbone.stem.weight.requires_grad
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
