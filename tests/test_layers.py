from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, fx, nn

from mtframe.assembly import Assembly
from mtframe.errors import RecipeError
from mtframe.model import Layers
from mtframe.recipe import Recipe
from mtframe_timm.backbone import TimmBackbone
from toy import ToyBackbone, toy_recipe

GROUP = (("a", "b", "c"),)


def images(size: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(3, 3, size, size, generator=generator),
        "b": torch.randn(2, 3, size, size, generator=generator),
    }


# Families whose code calls its stages in different ways: in a list, by hooks, by indices, with windows, with
# positions that no module holds, with rotary tables, with positions that depend on the size alone.
@pytest.mark.parametrize(
    ("member", "size"),
    [
        ("test_resnet", 64),
        ("convnext_atto", 64),
        ("test_vit", 160),
        ("levit_128s", 224),
        ("hrnet_w18_small", 64),
        ("mobilenetv3_small_050", 64),
        ("vit_tiny_r_s16_p8_224", 224),
        ("xcit_nano_12_p16_224", 64),
        ("hiera_tiny_224", 224),
        ("eva02_tiny_patch14_224", 56),
    ],
)
def test_before_training_every_task_sees_what_the_whole_backbone_gives(member: str, size: int) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(member, size, pretrained=False).eval()
    sharing = Layers(deepcopy(backbone), GROUP, shared=len(backbone.stages) // 2).eval()
    given = images(size)
    with torch.no_grad():
        maps = sharing(given, {"c": "a"})
        expected = {"a": backbone(given["a"]), "b": backbone(given["b"]), "c": backbone(given["a"])}
    assert set(maps) == {"a", "b", "c"}
    for task, wanted in expected.items():
        for got, right in zip(maps[task], wanted, strict=True):
            torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-5)


class Counting(ToyBackbone):
    """Counts the images that each stage sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[int]] = {"stem": [], "body": []}
        for name, counts in self.seen.items():
            self.get_submodule(name)[0].register_forward_hook(lambda _, args, __, to=counts: to.append(len(args[0])))


def test_shared_stages_run_once_and_own_stages_on_own_images() -> None:
    backbone = Counting()
    stem, body = backbone.seen["stem"], backbone.seen["body"]
    sharing = Layers(backbone, (("a", "b"), ("c",)), shared=1)
    given = images(32)
    sharing({**given, "c": torch.randn(2, 3, 64, 64)})
    assert stem == [5, 2]
    assert body == [3, 2, 2]


def test_gradients_are_those_of_separate_networks_with_one_stem() -> None:
    torch.manual_seed(0)
    backbone = ToyBackbone().eval()
    sharing = Layers(deepcopy(backbone), (("a", "b"),), shared=1).eval()
    given = images(32)
    maps = sharing(given)
    (maps["a"][1].square().sum() + 3 * maps["b"][1].sum()).backward()
    other = deepcopy(backbone)
    (backbone(given["a"])[1].square().sum()).backward()
    (3 * other(given["b"])[1].sum()).backward()
    trunk = dict(sharing.trunk.named_parameters())
    assert set(trunk) == {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"}
    for name, parameter in trunk.items():
        expected = backbone.get_parameter(name).grad + other.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, expected)
    for task, alone in (("a", backbone), ("b", other)):
        for name, parameter in sharing.branches[task].named_parameters():
            assert name.startswith("body.")
            torch.testing.assert_close(parameter.grad, alone.get_parameter(name).grad)


def test_copies_and_state_dicts_hold_each_weight_once() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("test_vit", 160, pretrained=False)
    count = sum(p.numel() for p in backbone.parameters())
    sharing = Layers(backbone, (("a", "b"),), shared=1).eval()
    state = sharing.state_dict()
    own = sum(p.numel() for p in sharing.branches["a"].parameters())
    assert sum(p.numel() for p in sharing.parameters()) == count + own
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    twin = deepcopy(sharing)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
        given = images(160)
        before = sharing(given)["b"][-1].clone()
        changed = twin(given)["b"][-1]
        assert not torch.allclose(before, changed)
        sharing.load_state_dict(twin.state_dict())
        torch.testing.assert_close(sharing(given)["b"][-1], changed)


class Traced(ToyBackbone):
    """With a graph in place of code, as torchvision's have, which uses a parameter of its own in the first stage."""

    class Net(ToyBackbone):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, images: Tensor) -> list[Tensor]:
            stem = self.stem(images) * self.scale
            return [stem, self.body(stem)]

    stages = (("network.stem", "network.scale"), ("network.body",))

    def __init__(self) -> None:
        super().__init__()
        self.network = fx.symbolic_trace(self.Net())
        del self.stem, self.body

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network(images)


def test_a_copy_of_a_traced_backbone_holds_each_weight_once() -> None:
    """Averaged weights go by the order of the state dict."""
    sharing = Layers(Traced(), (("a", "b"),), shared=1).eval()
    sharing(images(32))
    twin = deepcopy(sharing)
    assert list(twin.state_dict()) == list(sharing.state_dict())
    with torch.no_grad():
        twin.trunk.network.scale.mul_(2)
    torch.testing.assert_close(twin(images(32))["a"][0], 2 * sharing(images(32))["a"][0])
    assert list(twin.state_dict()) == list(sharing.state_dict())


def test_weights_of_batchnorms_are_loaded_from_a_file() -> None:
    torch.manual_seed(0)
    sharing, other = (Layers(ToyBackbone(), (("a",), ("b",)), shared=1) for _ in range(2))
    sharing(images(32))
    other.load_state_dict(load(save(dict(sharing.state_dict()))))
    given = images(32)
    torch.testing.assert_close(other.eval()(given)["b"], sharing.eval()(given)["b"])


def test_in_place_activations_do_not_reach_another_task() -> None:
    class InPlace(ToyBackbone):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Hardtanh(0, 0.1, inplace=True), self.body)
            self.stem = self.stem[0]

    backbone = InPlace().eval()
    sharing = Layers(deepcopy(backbone), GROUP, shared=1).eval()
    given = images(32)
    maps = sharing(given, {"c": "a"})
    for task, of in (("a", "a"), ("b", "b"), ("c", "a")):
        torch.testing.assert_close(maps[task][1], backbone(given[of])[1])


@pytest.mark.parametrize("shared", [-1, 2])
def test_a_task_needs_a_stage_of_its_own(shared: int) -> None:
    with pytest.raises(RecipeError, match=f"shared: expected 0 to 1 of the backbone's 2 stages, got {shared}"):
        Layers(ToyBackbone(), GROUP, shared=shared)


def test_nothing_shared_is_a_network_each() -> None:
    sharing = Layers(ToyBackbone(), (("a", "b"),), shared=0)
    assert sharing.trunk is None
    maps = sharing(images(32))
    assert len(maps["a"][1]) == 3
    assert len(maps["b"][1]) == 2


def test_a_recipe_chooses_it() -> None:
    recipe = toy_recipe()
    recipe["sharing"] = {"name": "layers", "shared": 1}
    model = Assembly(Recipe.from_plain(recipe)).model()
    names = {name.split(".")[1] for name, _ in model.sharing.named_parameters() if name.startswith("branches")}
    assert names == {"one", "two"}
