"""torchvision's models as backbones: what they give, whatever their kind."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from command import mtframe
from mtframe.errors import CheckpointError, MtframeError, RecipeError
from mtframe.kinds import FeatureSpec
from mtframe.model import Layers
from mtframe_torchvision.backbone import TorchvisionBackbone
from small import Small

MEMBERS = TorchvisionBackbone.members("*")

# One of each kind: plain, with blocks that have no sum, NHWC maps, functional layers at the end, tokens, side
# branches, without padding, three strides, widths computed from numbers, windows of a fixed number of cells.
KINDS = {
    "resnet18": (64, (4, 8, 16, 32)),
    "mobilenet_v3_small": (64, (4, 8, 16, 32)),
    "efficientnet_b0": (64, (4, 8, 16, 32)),
    "swin_t": (64, (4, 8, 16, 32)),
    "densenet121": (64, (4, 8, 16, 32)),
    "vit_b_32": (64, (4, 8, 16, 32)),
    "googlenet": (64, (4, 8, 16, 32)),
    "squeezenet1_1": (64, (4, 8, 16)),
    "regnet_y_400mf": (64, (4, 8, 16, 32)),
    "maxvit_t": (224, (4, 8, 16, 32)),
}


SLOWEST = pytest.param("maxvit_t", marks=pytest.mark.slow)


def random(member: str, size: int = 64, **options) -> TorchvisionBackbone:
    return TorchvisionBackbone(member, size, pretrained=False, **options)


@pytest.mark.parametrize("member", [*(kind for kind in KINDS if kind != "maxvit_t"), SLOWEST])
def test_what_is_declared_comes_out_all_of_it_is_trained_and_each_part_is_in_one_stage(member: str) -> None:
    size, strides = KINDS[member]
    backbone = random(member, size)
    maps = backbone(torch.randn(2, 3, size, size))
    assert tuple(feature.stride for feature in backbone.features) == strides
    for feature_map, feature in zip(maps, backbone.features, strict=True):
        # SqueezeNet's pooling does without padding.
        side = size // feature.stride - (member == "squeezenet1_1")
        assert feature_map.shape == (2, feature.channels, side, side)
    sum((feature_map * torch.randn_like(feature_map)).mean() for feature_map in maps).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for name in [*dict(backbone.named_parameters()), *dict(backbone.named_buffers())]:
        owners = [p for prefixes in backbone.stages for p in prefixes if f"{name}.".startswith(f"{p}.")]
        assert len(owners) == 1, name
    assert all(backbone.stages)


@pytest.mark.slow
@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_is_planned(member: str) -> None:
    described = TorchvisionBackbone.describe_member(member)
    assert described["strides"] in ((4, 8, 16, 32), (4, 8, 16))
    assert described["parameters"] > 100_000
    assert described["stages"] >= 3


def test_there_are_all_classification_models_and_no_others() -> None:
    assert {"alexnet", "vit_h_14", "maxvit_t", "swin_v2_t"} <= set(MEMBERS)
    assert not [name for name in MEMBERS if "rcnn" in name or "deeplab" in name or "quantized" in name]
    assert TorchvisionBackbone.members("resnet1*") == ["resnet101", "resnet152", "resnet18"]
    tagged = TorchvisionBackbone.members("resnet50", pretrained=True)
    assert tagged == ["resnet50.IMAGENET1K_V1", "resnet50.IMAGENET1K_V2"]


def test_maps_are_those_of_the_models_own_stages() -> None:
    torch.manual_seed(0)
    whole = get_model("resnet18", weights=None).eval()
    backbone = random("resnet18").eval()
    backbone.network.load_state_dict(whole.state_dict(), strict=False)
    seen: list[torch.Tensor] = []
    for layer in (whole.layer1, whole.layer2, whole.layer3, whole.layer4):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = torch.randn(1, 3, 64, 64)
    whole(images)
    for ours, theirs in zip(backbone(images), seen, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert backbone.features[0] == FeatureSpec("layer1", 64, 4)


def test_nhwc_maps_are_transposed_not_reshaped() -> None:
    backbone = random("swin_t").eval()
    images = torch.randn(1, 3, 64, 64)
    nhwc = backbone.network(images)[0]
    assert nhwc.shape == (1, 16, 16, 96)
    assert torch.equal(backbone(images)[0][0, :, 1, 2], nhwc[0, 1, 2])


def test_a_plain_vit_gives_its_last_tokens_without_the_class_token_row_by_row() -> None:
    backbone = random("vit_b_32", 96).eval()
    (tokens,) = backbone.network(torch.randn(1, 3, 96, 96))
    assert tokens.shape == (1, 1 + 9, 768)
    assert tokens.mean(dim=2).abs().max() < 1e-5  # what the final LayerNorm leaves, before any training
    (found,) = backbone._maps
    cells = found.to_nchw(tokens, 96, 96)
    assert torch.equal(cells[0, :, 1, 2], tokens[0, 1 + 3 + 2])
    assert [feature.stride for feature in backbone.features] == [4, 8, 16, 32]
    assert len(backbone.stages) == 12 + 1
    assert backbone.stages[5] == ("network.encoder.layers.encoder_layer_5",)
    assert backbone.stages[12] == ("pyramid",)


def test_no_classifier_and_no_side_branch_is_kept() -> None:
    kept = [*random("googlenet").state_dict(), *random("resnet18").state_dict()]
    assert not [name for name in kept if "fc" in name or "aux" in name]


def test_stages_follow_the_layers() -> None:
    assert random("resnet18").stages == (
        ("network.conv1", "network.bn1", "network.relu", "network.maxpool", "network.layer1"),
        ("network.layer2",),
        ("network.layer3",),
        ("network.layer4",),
    )


def test_other_sizes_and_shapes() -> None:
    maps = random("swin_t").eval()(torch.randn(1, 3, 96, 128))
    assert [tuple(feature_map.shape[2:]) for feature_map in maps] == [(24, 32), (12, 16), (6, 8), (3, 4)]
    with pytest.raises(RecipeError, match="vit_b_32 was built for images of 64×64 px and does not take 96×64"):
        random("vit_b_32")(torch.randn(1, 3, 96, 64))


@pytest.mark.parametrize(
    ("member", "size", "message"),
    [
        ("vit_b_16", 100, r"cannot take images of 100×100 px; it takes 96 or 112 or 128, for example"),
        ("maxvit_t", 96, r"cannot take images of 96×96 px; it takes 224, for example .*not divisible by partition"),
        ("inception_v3", 48, r"cannot take images of 48×48 px; it takes "),
    ],
)
def test_a_size_that_the_model_cannot_take_says_what_it_takes(member: str, size: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        random(member, size)


def test_frozen_stages_keep_their_weights_and_statistics_and_do_not_skip() -> None:
    backbone = random("efficientnet_b0", frozen_stages=2, drop_path=0.9)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    maps = backbone(torch.randn(4, 3, 64, 64))
    sum(feature_map.mean() for feature_map in maps).backward()
    frozen = tuple(f"{prefix}." for prefix in sum(backbone.stages[:2], ()))
    trained = [name for name, parameter in backbone.named_parameters() if parameter.grad is not None]
    assert not [name for name in trained if name.startswith(frozen)]
    changed = [name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed
    assert not [name for name in changed if name.startswith(frozen)]
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(backbone(images)[1], backbone(images)[1])
    with pytest.raises(RecipeError, match=r"^frozen_stages: must be 0 to 4, the stages of torchvision/resnet18, got 9"):
        random("resnet18", frozen_stages=9)


def test_frozen_is_all_but_the_pyramid_of_a_plain_vit() -> None:
    backbone = random("vit_b_32", frozen=True)
    assert {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad} == {"pyramid"}
    assert not backbone.network.training


def test_drop_path_rises_towards_the_last_block() -> None:
    def rates(**options) -> list[float]:
        modules = random("convnext_tiny", **options).modules()
        return [module.p for module in modules if isinstance(module, torchvision.ops.StochasticDepth)]

    assert rates(drop_path=0.3)[0] == 0
    assert rates(drop_path=0.3)[-1] == pytest.approx(0.3)
    assert not any(rates())
    with pytest.raises(RecipeError, match="drop_path: torchvision/vgg11 has no stochastic depth"):
        random("vgg11", drop_path=0.1)
    with pytest.raises(RecipeError, match="drop_path: must be 0 or more and below 1, got 1"):
        random("convnext_tiny", drop_path=1.0)


def save(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path) if path.suffix == ".safetensors" else torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    whole = get_model("squeezenet1_1", weights=None, num_classes=7)
    backbone = random("squeezenet1_1", weights=save(whole, tmp_path / f"w{suffix}"))
    for name, tensor in backbone.network.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
    assert TorchvisionBackbone.pretraining("squeezenet1_1", weights=Path("a/w.pth")) == "the weights in w.pth"


def test_weights_of_a_vit_of_another_size_and_with_the_names_of_published_files(tmp_path: Path) -> None:
    whole = get_model("vit_b_32", weights=None, image_size=128)
    old = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
        for name, tensor in whole.state_dict().items()
    }
    torch.save(old, tmp_path / "w.pth")
    backbone = random("vit_b_32", 64, weights=tmp_path / "w.pth")
    state = backbone.network.state_dict()
    assert state["encoder.pos_embedding"].shape == (1, 5, 768)
    name = "encoder.layers.encoder_layer_3.mlp.0.weight"
    assert torch.equal(state[name], whole.state_dict()[name])


def test_weights_of_a_densenet_with_the_names_of_published_files(tmp_path: Path) -> None:
    whole = get_model("densenet121", weights=None)
    torch.save({name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor
                for name, tensor in whole.state_dict().items()}, tmp_path / "w.pth")  # fmt: skip
    state = random("densenet121", weights=tmp_path / "w.pth").network.state_dict()
    name = "features.denseblock2.denselayer3.conv2.weight"
    assert torch.equal(state[name], whole.state_dict()[name])


def test_wrong_weights_say_what_is_wrong(tmp_path: Path) -> None:
    other = save(get_model("resnet50", weights=None), tmp_path / "resnet50.pth")
    with pytest.raises(
        CheckpointError, match=r"resnet50.pth: not weights of this backbone: size mismatch for layer1.0"
    ):
        random("resnet18", weights=other)
    few = save(get_model("squeezenet1_1", weights=None), tmp_path / "few.safetensors")
    with pytest.raises(CheckpointError, match=r"few.safetensors.*: 100 of 120 tensors are missing, such as "):
        random("resnet18", weights=few)
    (tmp_path / "text.pth").write_text("no weights", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"text.pth: cannot be read as weights of torchvision/resnet18"):
        random("resnet18", weights=tmp_path / "text.pth")
    with pytest.raises(RecipeError, match=r"no file 'gone.pth'; expected a .safetensors or .pth file"):
        random("resnet18", weights=Path("gone.pth"))


def test_published_weights_are_loaded_and_only_when_not_restoring(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import SqueezeNet1_1_Weights

    whole = get_model("squeezenet1_1", weights=None)
    asked: list[dict] = []

    def state_dict(self: SqueezeNet1_1_Weights, **options) -> dict:
        asked.append(options)
        return whole.state_dict()

    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", state_dict)
    TorchvisionBackbone("squeezenet1_1", 64, restoring=True)
    assert asked == []
    backbone = TorchvisionBackbone("squeezenet1_1", 64)
    assert torch.equal(backbone.network.state_dict()["features.0.weight"], whole.features[0].weight)
    assert asked[0]["weights_only"] is True
    assert TorchvisionBackbone.pretraining("squeezenet1_1") == (
        "pretrained weights of torchvision/squeezenet1_1 (IMAGENET1K_V1)"
    )
    assert TorchvisionBackbone.pretraining("squeezenet1_1", pretrained=False) is None


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import SqueezeNet1_1_Weights

    def offline(self: SqueezeNet1_1_Weights, **options) -> dict:
        raise OSError("no route to host")

    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", offline)
    with pytest.raises(MtframeError, match=r"torchvision/squeezenet1_1 from https://.*pretrained=false \(no route"):
        TorchvisionBackbone("squeezenet1_1", 64)


@pytest.mark.parametrize(
    ("member", "package"),
    [("fasterrcnn_resnet50_fpn", "detection"), ("fcn_resnet50.DEFAULT", "segmentation"), ("r3d_18", "video"),
     ("raft_small", "optical_flow"), ("quantized_resnet18", "quantization")],
)  # fmt: skip
def test_models_of_other_tasks_are_no_backbones(member: str, package: str) -> None:
    message = rf"'{member.partition('.')[0]}' is a model of torchvision.models.{package}; only the classification"
    with pytest.raises(RecipeError, match=message):
        random(member)


def test_unknown_models_and_tags() -> None:
    with pytest.raises(RecipeError, match=r"no classification model 'resnet81'; did you mean .*resnet18"):
        random("resnet81")
    with pytest.raises(RecipeError, match=r"no weights 'resnet18.V3'; 'resnet18' has IMAGENET1K_V1"):
        random("resnet18.V3")


def test_a_network_that_cannot_be_traced_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import SqueezeNet

    def forward(self: SqueezeNet, x: torch.Tensor) -> torch.Tensor:
        return self.features(x) if x.sum() > 0 else x

    monkeypatch.setattr(SqueezeNet, "forward", forward)
    with pytest.raises(RecipeError, match=r"squeezenet1_1 cannot be traced by torch.fx.*control flow"):
        random("squeezenet1_1")


def test_a_copy_is_independent_and_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(3)
    backbone = random("mobilenet_v3_small")
    torch.manual_seed(3)
    again = random("mobilenet_v3_small")
    assert all(torch.equal(a, b) for a, b in zip(backbone.parameters(), again.parameters(), strict=True))
    average = copy.deepcopy(backbone)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.state_dict().items())


def test_describe_member() -> None:
    assert TorchvisionBackbone.describe_member("resnet18") == {
        # 11,689,512 parameters, 513,000 of which are the classifier's.
        "parameters": 11_176_512,
        "size": 224,
        "strides": (4, 8, 16, 32),
        "channels": (64, 128, 256, 512),
        "stages": 4,
        "pretrained": True,
    }


def test_it_trains_evaluates_and_is_loaded_again(small: Small, tmp_path: Path) -> None:
    parts = ["torchvision/mobilenet_v3_small" if part.startswith("timm/") else part for part in small.parts]
    result = mtframe("train", *parts, "--out", tmp_path / "run")
    assert (result.code, result.err) == (0, ""), result
    assert mtframe("evaluate", tmp_path / "run").code == 0


@pytest.mark.parametrize("member", ["mobilenet_v3_small", "swin_t", "vit_b_32"])
def test_first_stages_can_be_shared_and_are_computed_once(member: str) -> None:
    torch.manual_seed(0)
    backbone = random(member).eval()
    images = {"faces": torch.randn(1, 3, 64, 64), "objects": torch.randn(2, 3, 64, 64)}
    expected = {task: backbone(pixels) for task, pixels in images.items()}
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    sharing = Layers(backbone, (("faces", "objects"),), shared=2).eval()
    calls: list[int] = []
    first.register_forward_hook(lambda *_: calls.append(1))
    maps = sharing(images)
    assert len(calls) == 1
    for task, theirs in expected.items():
        for ours, wanted in zip(maps[task], theirs, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
