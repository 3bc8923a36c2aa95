"""Frozen parts do not move by a bit: parameters, BatchNorm statistics, dropout."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mtframe.errors import RecipeError
from mtframe_timm.backbone import TimmBackbone


def train(backbone: TimmBackbone, steps: int = 3) -> dict[str, bool]:
    """Trains with momentum and weight decay; returns which entries of the state dict changed."""
    torch.manual_seed(0)
    backbone.eval()
    backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in backbone.parameters() if p.requires_grad), 0.1, 0.9, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        maps = backbone(torch.randn(4, 3, 64, 64) + 1)
        sum((feature_map * torch.randn_like(feature_map)).mean() for feature_map in maps).backward()
        optimizer.step()
    return {name: not torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items()}


def in_stages(backbone: TimmBackbone, name: str, count: int) -> bool:
    prefixes = [prefix for stage in backbone.stages[:count] for prefix in stage]
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


@pytest.mark.parametrize("member", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_frozen_stages_stay_bit_identical_and_the_rest_changes(member: str, count: int) -> None:
    backbone = TimmBackbone(member, 64, pretrained=False, frozen_stages=count)
    changed = train(backbone)
    assert changed == {name: not in_stages(backbone, name, count) for name in changed}
    assert any(changed.values())


def test_frozen_keeps_the_whole_model() -> None:
    backbone = TimmBackbone("test_resnet", 64, pretrained=False, frozen=True)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.train()
    backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_frozen_plain_vit_still_trains_its_pyramid() -> None:
    changed = train(TimmBackbone("test_vit", 64, pretrained=False, frozen=True))
    assert {name.split(".")[0]: flag for name, flag in changed.items()} == {"network": False, "pyramid": True}


def test_frozen_modules_stay_in_evaluation_mode_when_trained() -> None:
    backbone = TimmBackbone("test_convnext", 64, pretrained=False, drop_path=0.9, frozen=True)
    backbone.train()
    assert backbone.training
    images = torch.randn(2, 3, 64, 64)
    for first, second in zip(backbone(images), backbone(images), strict=True):
        assert torch.equal(first, second)  # stochastic depth would make them differ


def test_freezing_survives_deepcopy_and_evaluation() -> None:
    backbone = copy.deepcopy(TimmBackbone("test_resnet", 64, pretrained=False, frozen_stages=2))
    backbone.eval()
    nn.Sequential(backbone).train()
    assert not backbone.network.bn1.training
    assert not backbone.network.layer1.training
    assert backbone.network.layer2.training


@pytest.mark.parametrize("count", [-1, 6])
def test_frozen_stages_out_of_range(count: int) -> None:
    with pytest.raises(RecipeError, match=rf"^frozen_stages: must be 0 to 5, the stages of timm/resnet18, got {count}"):
        TimmBackbone("resnet18", 64, pretrained=False, frozen_stages=count)
