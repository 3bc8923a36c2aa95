"""timm models as backbones: what they give, whatever their kind."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec
from mtframe_timm.backbone import TimmBackbone

# The smallest of each kind: plain pyramids, flattened and unflattened extractors, NHWC maps, odd strides,
# plain ViTs with and without class token, with rotary embeddings, with a patch of 14, with attention pooling.
KINDS = (
    "resnet18",
    "resnet10t",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "test_mambaout",
    "vit_tiny_patch16_224",
    "vit_small_patch16_dinov3",
    "vit_small_patch14_dinov2",
    "vit_base_patch16_siglip_224",
    "levit_128s",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "regnetx_002",
    "pvt_v2_b0",
    "repvgg_a0",
    "test_maxvit",
)


# Models with other strides than 4, 8, 16, 32, or that do not take 64 px.
STRIDES = {"levit_128s": [16, 32, 64]}
SIZES = {"test_maxvit": 96}


@cache
def on_meta(member: str, size: int = 64, **options) -> TimmBackbone:
    with torch.device("meta"):
        return TimmBackbone(member, size, pretrained=False, **options)


@pytest.mark.parametrize("member", KINDS)
def test_maps_are_nchw_and_as_declared_and_every_parameter_is_used(member: str) -> None:
    size = SIZES.get(member, 64)
    backbone = on_meta(member, size)
    maps = backbone(torch.empty(2, 3, size, size, device="meta"))
    assert [feature.stride for feature in backbone.features] == STRIDES.get(member, [4, 8, 16, 32])
    for feature_map, feature in zip(maps, backbone.features, strict=True):
        side = size // feature.stride
        assert feature_map.shape == (2, feature.channels, side, side)
    sum(feature_map.sum() for feature_map in maps).backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_a_layer_behind_the_last_map_is_not_trained() -> None:
    """timm's extractor for PiT runs the whole model, its final norm included, and takes maps before it."""
    untrained = {
        name for name, parameter in on_meta("pit_ti_224", 112).named_parameters() if not parameter.requires_grad
    }
    assert untrained == {"network.body.norm.weight", "network.body.norm.bias"}


@pytest.mark.parametrize("member", KINDS)
def test_every_parameter_and_buffer_is_in_exactly_one_stage(member: str) -> None:
    backbone = on_meta(member, SIZES.get(member, 64))
    names = [*dict(backbone.named_parameters()), *dict(backbone.named_buffers())]
    for name in names:
        owners = [
            stage
            for stage, prefixes in enumerate(backbone.stages)
            for prefix in prefixes
            if name == prefix or name.startswith(f"{prefix}.")
        ]
        assert len(owners) == 1, name
    assert all(backbone.stages)


def test_stages_follow_the_layers() -> None:
    assert on_meta("resnet18").stages == (
        ("network.conv1", "network.bn1", "network.act1"),
        ("network.maxpool", "network.layer1"),
        ("network.layer2",),
        ("network.layer3",),
        ("network.layer4",),
    )
    stages = on_meta("vit_tiny_patch16_224").stages
    assert len(stages) == 12 + 1
    assert {"network.model.pos_embed", "network.model.patch_embed", "network.model.blocks.0"} < set(stages[0])
    assert stages[5] == ("network.model.blocks.5",)
    assert "network.model.norm" in stages[11]
    assert stages[12] == ("pyramid",)


@pytest.mark.parametrize("member", ["test_resnet", "test_mambaout", "test_vit", "test_convnext", "levit_128s"])
def test_real_maps_depend_on_the_image_and_gradients_are_finite(member: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(member, 64, pretrained=False)
    maps = backbone(torch.randn(2, 3, 64, 64))
    loss = sum((feature_map * torch.randn_like(feature_map)).mean() for feature_map in maps)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in backbone.parameters())
    assert all((feature_map[0] != feature_map[1]).any() for feature_map in maps)


def test_nhwc_maps_are_transposed_not_reshaped() -> None:
    backbone = TimmBackbone("swin_tiny_patch4_window7_224", 64, pretrained=False).eval()
    images = torch.randn(1, 3, 64, 64)
    raw = backbone.network(images)
    for feature_map, nhwc in zip(backbone(images), raw, strict=True):
        assert torch.equal(feature_map[0, :, 1, 0], nhwc[0, 1, 0, :])


def test_flat_maps_go_through_the_final_norm() -> None:
    backbone = TimmBackbone("test_vit", 64, pretrained=False).eval()
    (tokens,) = backbone.network(torch.randn(1, 3, 64, 64))
    assert tokens.shape == (1, 64, 4, 4)
    assert tokens.mean(dim=1).abs().max() < 1e-5  # what LayerNorm leaves, before any training


def test_no_classifier_is_kept() -> None:
    assert "fc.weight" not in "".join(on_meta("resnet18").state_dict())
    assert not [name for name in on_meta("vit_base_patch16_siglip_224").state_dict() if "attn_pool" in name]


def test_mean_and_std_are_the_models_own() -> None:
    assert on_meta("resnet18").mean == (0.485, 0.456, 0.406)
    assert on_meta("vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)
    assert on_meta("vit_tiny_patch16_224").std == (0.5, 0.5, 0.5)


def test_other_weights_may_want_images_otherwise() -> None:
    backbone = TimmBackbone(
        "test_resnet", 64, pretrained=False, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), colour_order="BGR"
    )
    assert (backbone.mean, backbone.std, backbone.colour_order) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "BGR")
    with pytest.raises(RecipeError, match=r"std: must be above 0, got \[0.5, 0.0, 0.5\]"):
        TimmBackbone("test_resnet", 64, pretrained=False, std=(0.5, 0.0, 0.5))


@given(height=st.integers(2, 6), width=st.integers(2, 6), member=st.sampled_from(["test_resnet", "test_vit"]))
@settings(max_examples=20, deadline=None)
def test_other_sizes_and_shapes_in_forward(height: int, width: int, member: str) -> None:
    backbone = on_meta(member)
    maps = backbone(torch.empty(1, 3, 32 * height, 32 * width, device="meta"))
    for feature_map, feature in zip(maps, backbone.features, strict=True):
        assert feature_map.shape[2:] == (32 * height // feature.stride, 32 * width // feature.stride)


@pytest.mark.parametrize("member", ["swin_tiny_patch4_window7_224", "vit_small_patch14_dinov2"])
@pytest.mark.parametrize("size", [112, 160])
def test_sizes_other_than_the_pretraining_one(member: str, size: int) -> None:
    maps = on_meta(member, size)(torch.empty(2, 3, size, size, device="meta"))
    assert [feature_map.shape[-1] for feature_map in maps][:2] == [size // 4, size // 8]


def test_a_size_that_the_model_cannot_take_says_what_it_takes() -> None:
    with pytest.raises(RecipeError, match=r"efficientformer_l1 cannot take images of 96×96 px; it takes 224, for"):
        on_meta("efficientformer_l1", 96)


def test_a_model_that_cannot_be_inspected_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of timm read numbers from tensors while they build a model."""
    import timm

    create_model = timm.create_model

    def reads_numbers(*args, **options):
        torch.linspace(0, 1, 2)[0].item()
        return create_model(*args, **options)

    monkeypatch.setattr(timm, "create_model", reads_numbers)
    assert TimmBackbone("test_resnet", 64, pretrained=False).features == on_meta("test_resnet").features


def test_another_size_than_a_fixed_model_was_built_for() -> None:
    backbone = on_meta("levit_128s", 64)
    with pytest.raises(RecipeError, match="levit_128s was built for images of 64×64 px and does not take 96×64"):
        backbone(torch.empty(1, 3, 96, 64, device="meta"))


def test_channels_last() -> None:
    for member in ("test_resnet", "test_vit"):
        backbone = TimmBackbone(member, 64, pretrained=False).eval()
        images = torch.randn(2, 3, 64, 64)
        expected = backbone(images)
        backbone = backbone.to(memory_format=torch.channels_last)
        for ours, theirs in zip(backbone(images.to(memory_format=torch.channels_last)), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_same_seed_gives_the_same_weights() -> None:
    def build() -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return TimmBackbone("test_vit", 64, pretrained=False).state_dict()

    first, second = build(), build()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_copy_is_independent() -> None:
    backbone = TimmBackbone("test_resnet", 64, pretrained=False)
    average = copy.deepcopy(backbone)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    backbone(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.state_dict().items())


def test_drop_path_reaches_the_model() -> None:
    from timm.layers import DropPath

    def rates(**options) -> list[float]:
        modules = on_meta("test_convnext", **options).modules()
        return [module.drop_prob for module in modules if isinstance(module, DropPath)]

    assert max(rates(drop_path=0.3)) == pytest.approx(0.3)
    assert not any(rates())
    with pytest.raises(RecipeError, match="drop_path: timm/vgg11 has no stochastic depth"):
        on_meta("vgg11", drop_path=0.1)
    with pytest.raises(RecipeError, match=r"drop_path: must be 0 or more and below 1, got 1\.5"):
        on_meta("test_convnext", drop_path=1.5)


def test_unknown_model_with_suggestions() -> None:
    with pytest.raises(RecipeError, match=r"no model 'resnet81'; did you mean .*resnet18"):
        TimmBackbone("resnet81", 64, pretrained=False)


def test_unknown_tag_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no weights 'resnet10t.a1_in1k'; 'resnet10t' has resnet10t.c3_in1k"):
        TimmBackbone("resnet10t.a1_in1k", 64, pretrained=False)


def test_members() -> None:
    assert {"resnet18", "resnet18d"} <= set(TimmBackbone.members("resnet18*"))
    tagged = TimmBackbone.members("resnet18*", pretrained=True)
    assert "resnet18.a1_in1k" in tagged
    assert "resnet18" not in tagged
    assert TimmBackbone.members("no_such_model*") == []


def test_describe_member() -> None:
    assert TimmBackbone.describe_member("resnet18") == {
        # torchvision's ResNet-18 has 11,689,512 parameters, 513,000 of which are the classifier's.
        "parameters": 11_176_512,
        "size": 224,
        "strides": (4, 8, 16, 32),
        "channels": (64, 128, 256, 512),
        "stages": 5,
        "pretrained": True,
    }
    described = TimmBackbone.describe_member("test_vit")
    assert described["strides"] == (4, 8, 16, 32)
    built = TimmBackbone("test_vit", described["size"], pretrained=False)
    assert described["parameters"] == sum(parameter.numel() for parameter in built.parameters())


def test_features_are_named_after_their_modules() -> None:
    assert on_meta("resnet18").features[0] == FeatureSpec("layer1", 64, 4)
