"""Weights from a file and from the hub."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mtframe.errors import CheckpointError, MtframeError, RecipeError
from mtframe_timm.backbone import TimmBackbone

MEMBERS = ("resnet10t", "test_convnext", "test_vit", "test_efficientnet", "test_mambaout")


def complete(member: str) -> torch.nn.Module:
    torch.manual_seed(7)
    return timm.create_model(member, pretrained=False).eval()


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_of_the_complete_model_gives_its_feature_maps(member: str, suffix: str, tmp_path: Path) -> None:
    model = complete(member)
    path = tmp_path / f"weights.{suffix}"
    save_file(model.state_dict(), path) if suffix == "safetensors" else torch.save(model.state_dict(), path)
    size = timm.get_pretrained_cfg(member).input_size[-1]
    backbone = TimmBackbone(member, size, weights=path).eval()
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected = model.forward_intermediates(images, norm=member == "test_vit", intermediates_only=True)
        ours = list(backbone.network(images))
    if backbone._nhwc:
        ours = [feature_map.permute(0, 3, 1, 2) for feature_map in ours]
    torch.testing.assert_close(ours, expected[-len(ours) :])


def test_a_training_checkpoint_in_a_wrapper(tmp_path: Path) -> None:
    state = complete("resnet10t").state_dict()
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3},
        tmp_path / "c.pth",
    )
    backbone = TimmBackbone("resnet10t", 64, weights=tmp_path / "c.pth")
    assert torch.equal(backbone.network.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_position_embeddings_are_resized(tmp_path: Path) -> None:
    state = complete("test_vit").state_dict()
    save_file(state, tmp_path / "vit.safetensors")
    backbone = TimmBackbone("test_vit", 64, weights=tmp_path / "vit.safetensors")
    assert state["pos_embed"].shape[1] == 10 * 10 + 1
    assert backbone.network.model.pos_embed.shape[1] == 4 * 4 + 1
    # The class token's embedding stays as it was; the grid's are interpolated, so their mean nearly does.
    torch.testing.assert_close(backbone.network.model.pos_embed[:, 0], state["pos_embed"][:, 0])
    torch.testing.assert_close(
        backbone.network.model.pos_embed[:, 1:].mean(dim=1),
        state["pos_embed"][:, 1:].mean(dim=1),
        atol=0.01,
        rtol=0,
    )


def test_a_file_of_the_backbone_alone(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in complete("resnet10t").state_dict().items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "headless.safetensors")
    backbone = TimmBackbone("resnet10t", 64, weights=tmp_path / "headless.safetensors")
    assert torch.equal(backbone.network.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


def test_another_architecture_with_other_shapes(tmp_path: Path) -> None:
    save_file(complete("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    # ResNet-10-T has a stem of three convolutions.
    with pytest.raises(
        CheckpointError,
        match=r"not weights of timm/resnet10t: \d+ of \d+ tensors are missing, such as 'conv1.0",
    ):
        TimmBackbone("resnet10t", 64, weights=tmp_path / "resnet18.safetensors")


def test_another_architecture_with_other_names(tmp_path: Path) -> None:
    save_file(complete("test_efficientnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"\d+ of \d+ tensors are missing.*another file in backbone.weights"):
        TimmBackbone("resnet10t", 64, weights=tmp_path / "other.safetensors")


def test_another_shape_is_named_with_what_was_expected(tmp_path: Path) -> None:
    state = complete("resnet10t").state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(7, 64, 3, 3)
    save_file(state, tmp_path / "odd.safetensors")
    shapes = r"expected \(64, 64, 3, 3\), found \(7, 64, 3, 3\)"
    message = f"1 have another shape, such as 'layer1.0.conv1.weight': {shapes}"
    with pytest.raises(CheckpointError, match=message):
        TimmBackbone("resnet10t", 64, weights=tmp_path / "odd.safetensors")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"backbone.weights: no file '.*gone.pth'; expected a .safetensors or .pth"):
        TimmBackbone("resnet10t", 64, weights=tmp_path / "gone.pth")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_that_is_no_checkpoint(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"text.{suffix}"
    path.write_text("not a checkpoint " * 20, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"text.{suffix}: cannot be read as weights of timm/resnet10t"):
        TimmBackbone("resnet10t", 64, weights=path)


class _Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    torch.save({"conv1.weight": _Evil(str(tmp_path / "executed"))}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="tensors only"):
        TimmBackbone("resnet10t", 64, weights=tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_weights_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    state = complete("resnet10t").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **options: dict(state))
    backbone = TimmBackbone("resnet10t", 64)
    assert torch.equal(backbone.network.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args, **options):
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(
        MtframeError,
        match=r"backbone.weights=FILE, .*backbone.pretrained=false \(OSError: Name or service not",
    ):
        TimmBackbone("resnet10t", 64)


def test_a_model_without_published_weights() -> None:
    without = sorted(
        set(timm.list_models("resnet*")) - {name.split(".")[0] for name in timm.list_pretrained("resnet*")}
    )
    with pytest.raises(RecipeError, match=f"no weights for '{without[0]}'; .*backbone.pretrained=false"):
        TimmBackbone(without[0], 64)


def test_where_it_starts_from_in_words() -> None:
    assert TimmBackbone.pretraining("resnet18") == "pretrained weights of timm/resnet18"
    assert TimmBackbone.pretraining("resnet18", pretrained=False) is None
    assert TimmBackbone.pretraining("resnet18", pretrained=False, weights=Path("a/w.pth")) == "the weights in w.pth"
    assert TimmBackbone.pretraining("resnet18", weights="a/w.pth", frozen=True) == "the weights in w.pth"
