"""What each scheme computes: by hand from its paper's equations, and what it computes how often."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from schemes import SCHEMES, ChannelsLast, images, shaken
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mtframe.errors import RecipeError
from mtframe.model import Network
from mtframe_sharing.adapters import Adapters, FiLM
from mtframe_sharing.cross_stitch import CrossStitch
from mtframe_sharing.mmoe import MMoE
from mtframe_sharing.mtan import MTAN
from mtframe_timm.backbone import TimmBackbone
from test_gradients import Staged

GROUP = (("a", "b"),)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(list(found), list(expected), rtol=1e-5, atol=1e-6)


class Counting(Staged):
    """Counts the images that its second stage sees; its copies count with it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Counts()
        self.body[0].register_forward_hook(lambda module, inputs, output: self.seen.append(len(inputs[0])))


class Counts(list):  # type: ignore[type-arg]
    """A list that copies share."""

    def __deepcopy__(self, memo: Any) -> Counts:
        return self


class TestCrossStitch:
    def test_columns_that_do_not_mix_are_networks_of_their_own(self) -> None:
        torch.manual_seed(0)
        sharing = shaken(CrossStitch(Staged(), GROUP, own=1.0))
        for units in sharing.units:
            for number, unit in enumerate(units.values()):
                unit.weight.data = torch.eye(2)[number]
        given = images(2, 3)
        found = sharing(given)
        for task, own in given.items():
            close(found[task], plain(sharing.columns[task])(own))

    def test_units_mix_what_all_columns_make_of_one_image(self) -> None:
        torch.manual_seed(0)
        sharing = shaken(CrossStitch(Staged(), GROUP))
        a, b = (plain(sharing.columns[task]) for task in "ab")
        first, last = (torch.stack([unit.weight for unit in units.values()]) for units in sharing.units)
        given = images(2, 3)
        found = sharing(given)
        for number, (task, own) in enumerate(given.items()):
            stem = torch.stack([a.stem(own), b.stem(own)])
            mixed = torch.einsum("tu,ubchw->tbchw", first, stem)
            body = torch.stack([a.body(mixed[0]), b.body(mixed[1])])
            close(found[task], [mixed[number], torch.einsum("u,ubchw->bchw", last[number], body)])

    def test_weights_begin_as_in_the_paper(self) -> None:
        sharing = CrossStitch(Staged(), (("a", "b"), ("c",)))
        assert [unit.weight.tolist() for unit in sharing.units[0].values()] == [
            pytest.approx(row) for row in ([0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9])
        ]
        alone = CrossStitch(Staged(), (("a",),))
        assert alone.units[0]["a"].weight.tolist() == [1.0]

    def test_every_image_runs_once_through_every_column(self) -> None:
        backbone = Counting()
        sharing = CrossStitch(backbone, (("a", "b"), ("c",)))
        seen = sharing.columns["a"].backbone.seen
        seen.clear()
        sharing({**images(2, 3), "c": torch.randn(4, 3, 48, 48)})
        assert seen == [5, 5, 5, 4, 4, 4]
        seen.clear()
        sharing(images(2), {"b": "a", "c": "a"})
        assert seen == [2, 2, 2]

    def test_what_is_shared_is_all_but_the_last_units(self) -> None:
        sharing = CrossStitch(Staged(), GROUP)
        shared = set(sharing.shared_parameters())
        own = {name for name, parameter in sharing.named_parameters() if parameter not in shared}
        assert own == {"units.1.a.weight", "units.1.b.weight"}

    def test_behind_the_last_unit_a_column_is_its_tasks_alone(self) -> None:
        """A plain ViT's feature pyramid gives several maps, between which and the head nothing is mixed."""
        sharing = CrossStitch(TimmBackbone("test_vit", 32, pretrained=False), GROUP)
        shared = set(sharing.shared_parameters())
        own = {n for n, p in sharing.named_parameters() if p not in shared}
        assert {n.split(".")[0] for n in own} == {"columns", "units"}
        assert all(".pyramid." in n or n.startswith("units.5") for n in own)
        maps = sharing(images(2, 1))
        assert [tuple(m.shape[2:]) for m in maps["b"]] == [(8, 8), (4, 4), (2, 2), (1, 1)]

    def test_a_run_loads_with_tasks_in_another_order(self) -> None:
        torch.manual_seed(0)
        sharing = shaken(CrossStitch(Staged(), (("b", "a"),)))
        other = CrossStitch(Staged(), (("a",), ("b",))).eval()
        other.load_state_dict(load(save(dict(sharing.state_dict()))))
        given = images(2, 3)
        for task, maps in sharing(given).items():
            close(other(given)[task], maps)


def plain(column: Any) -> Staged:
    """A network with a column's weights."""
    network = Staged().eval()
    network.load_state_dict(column.backbone.state_dict())
    return network


def test_attention_is_the_papers_by_hand() -> None:
    torch.manual_seed(0)
    sharing = shaken(MTAN(Staged(), GROUP))
    given = images(2, 3)
    for task, own in given.items():
        p1, p2 = sharing.trunk.backbone(own)
        mine = sharing.attention[task]
        a1 = mine[0](p1)
        assert a1.min() > 0
        assert a1.max() < 1
        first = a1 * p1
        onward = max_pool2d(sharing.onward[0](first), 2)
        close(sharing(given)[task], [first, mine[1](torch.cat([p2, onward], 1)) * p2])


def test_levels_of_one_size_or_of_odd_ones_are_attended_to() -> None:
    class Odd(Staged):
        def forward(self, images: Tensor) -> list[Tensor]:
            stem = self.stem(images)
            return [stem, self.body[0](stem)[:, :, :5, :7]]

    maps = MTAN(Odd(), GROUP)(images(1))["a"]
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 16), (5, 7)]


def test_experts_are_mixed_by_a_softmax_for_each_image() -> None:
    torch.manual_seed(0)
    sharing = shaken(MMoE(Staged(), GROUP, experts=3))
    inner = sharing.trunk.backbone
    given = images(2, 3)
    for task, own in given.items():
        maps = inner.backbone(own)
        gate = (maps[-1].mean((2, 3)) @ sharing.gates[task].weight.T).softmax(1)
        assert gate.shape == (len(own), 3)
        expected = [
            sum(gate[:, e, None, None, None] * expert[level](shared) for e, expert in enumerate(inner.experts))
            for level, shared in enumerate(maps)
        ]
        close(sharing(given)[task], expected)


@pytest.mark.parametrize("make", [Staged, ChannelsLast])
@pytest.mark.parametrize("scheme", [Adapters, FiLM])
def test_what_stands_between_stages_changes_nothing_at_first(scheme: Any, make: Any) -> None:
    torch.manual_seed(0)
    backbone = make().eval()
    sharing = scheme(deepcopy(backbone), GROUP).eval()
    given = images(2, 3)
    for task, maps in sharing(given).items():
        close(maps, backbone(given[task]))


def test_adapters_and_film_by_hand() -> None:
    torch.manual_seed(0)
    given = images(2, 3)
    for scheme in (Adapters, FiLM):
        sharing = shaken(scheme(Staged(), GROUP))
        backbone = Staged().eval()
        backbone.load_state_dict(sharing.inserted.network.backbone.state_dict())

        def own(task: str, number: int, x: Tensor, sharing: Any = sharing) -> Tensor:
            part = sharing.inserted.tasks[task][number]
            if isinstance(sharing, FiLM):
                return torch.einsum("c,bchw->bchw", 1 + part.gamma, x) + part.beta[:, None, None]
            low = torch.einsum("kc,bchw->bkhw", part.down.weight, x)
            low = (low + part.down.bias[:, None, None]).relu()
            return x + torch.einsum("ck,bkhw->bchw", part.up.weight, low) + part.up.bias[:, None, None]

        for task, pixels in given.items():
            stem = own(task, 0, backbone.stem(pixels))
            close(sharing(given)[task], [stem, own(task, 1, backbone.body(stem))])


@pytest.mark.parametrize("name", ["adapters", "film"])
def test_tasks_on_the_same_images_get_modules_of_their_own(name: str) -> None:
    torch.manual_seed(0)
    sharing = shaken(SCHEMES[name][0](Counting(), (("a", "b", "c", "d"),)))
    seen = sharing.inserted.network.backbone.seen
    seen.clear()
    given = images(2, 3)
    maps = sharing(given, {"c": "a", "d": "a"})
    # All with images of their own together, then a second task on the same ones, then a third.
    assert seen == [5, 2, 2]
    for task, lender in (("c", "a"), ("d", "a")):
        close(maps[task], sharing({task: given[lender]})[task])
    assert not torch.allclose(maps["a"][1], maps["c"][1])


def test_a_frozen_trunk_stays_bit_by_bit() -> None:
    backbone = TimmBackbone("test_resnet", 32, pretrained=False)
    sharing = Adapters(backbone, (("a",), ("b",)), trunk="frozen").train()
    before = {key: value.clone() for key, value in sharing.inserted.network.state_dict().items()}
    maps = sharing({"a": images(2)["a"], "b": torch.randn(2, 3, 64, 64)})
    sum(m.sum() for of_task in maps.values() for m in of_task).backward()
    optimizer = torch.optim.SGD(sharing.parameters(), lr=1.0, weight_decay=0.1)
    optimizer.step()
    after = sharing.inserted.network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    trained = {name.split(".")[1] for name, p in sharing.named_parameters() if p.requires_grad}
    assert trained == {"tasks"}


@pytest.mark.parametrize("name", ["mtan", "mmoe"])
def test_the_shared_maps_of_tasks_on_the_same_images_are_computed_once(name: str) -> None:
    scheme, options = SCHEMES[name]
    backbone = Counting()
    sharing = scheme(backbone, (("a", "b", "c"),), **options)
    maps = sharing(images(2, 3), {"c": "a"})
    assert backbone.seen == [5]
    assert [len(maps[task][0]) for task in "abc"] == [2, 3, 2]
    assert not torch.allclose(maps["a"][1], maps["c"][1])


@pytest.mark.parametrize("name", [name for name in SCHEMES if name not in ("network", "layers")])
def test_state_dicts_go_by_the_tasks_names(name: str) -> None:
    scheme, options = SCHEMES[name]
    first, second = (scheme(Staged(), groups, **options) for groups in ((("a", "b"),), (("b",), ("a",))))
    assert set(first.state_dict()) == set(second.state_dict())
    own = {key for key in first.state_dict() if ".a." in key}
    assert own
    assert {key.replace(".a.", ".b.") for key in own} <= set(first.state_dict())


@pytest.mark.parametrize("name", SCHEMES)
def test_one_task_alone_will_do(name: str) -> None:
    scheme, options = SCHEMES[name]
    with torch.no_grad():
        sharing = scheme(Staged(), (("a",),), **options)
    maps = sharing(images(2))["a"]
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None for p in sharing.parameters())


@pytest.mark.parametrize(
    ("scheme", "options", "said"),
    [
        (CrossStitch, {"own": 1.5}, "own: must be 0 to 1, got 1.5"),
        (MTAN, {"width": 0.0}, "width: must be above 0 and at most 4, got 0"),
        (Adapters, {"width": float("nan")}, "width: must be above 0 and at most 4, got nan"),
        (MMoE, {"experts": 0}, "experts: must be 1 or more, got 0"),
    ],
)
def test_options_out_of_range_are_refused(scheme: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        scheme(Staged(), GROUP, **options)


@pytest.mark.parametrize("scheme", [CrossStitch, Adapters, FiLM])
def test_statistics_are_kept_by_group_of_size(scheme: Any) -> None:
    sharing = scheme(TimmBackbone("test_resnet", 32, pretrained=False), (("a",), ("b",))).train()
    state = {key: value.clone() for key, value in sharing.state_dict().items()}
    sharing({"b": torch.randn(4, 3, 32, 32)})
    means = [key for key in state if key.endswith("running_mean")]
    assert means
    for key, value in sharing.state_dict().items():
        if key in means:
            assert torch.equal(value[0], state[key][0])
            assert not torch.equal(value[1], state[key][1])


def test_a_norm_sees_the_joint_pass_of_a_size() -> None:
    """As with `network`: in training each image is normalised with the mixture's statistics."""
    backbone = Staged(norm=nn.BatchNorm2d)
    sharing = FiLM(deepcopy(backbone), GROUP).train()
    given = images(4, 4)
    maps = sharing(given)
    for task, expected in Network(backbone, GROUP).train()(given).items():
        close(maps[task], expected)
