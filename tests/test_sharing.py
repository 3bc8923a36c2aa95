from __future__ import annotations

import pytest
import torch
from torch import nn

from mtframe.assembly import Assembly
from mtframe.balance import Sum
from mtframe.errors import RecipeError
from mtframe.model import Network
from mtframe.recipe import Recipe
from toy import ToyBackbone, toy_recipe


def count_passes(network: Network) -> list[int]:
    passes: list[int] = []
    network.backbone.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    return passes


def test_tasks_of_one_size_take_one_concatenated_pass() -> None:
    torch.manual_seed(0)
    network = Network(ToyBackbone(), [("a", "b")]).eval()
    passes = count_passes(network)
    images = {"a": torch.randn(2, 3, 16, 16), "b": torch.randn(3, 3, 16, 16)}
    maps = network(images)
    assert passes == [5]
    for task, own in images.items():
        for part, expected in zip(maps[task], network.backbone(own), strict=True):
            torch.testing.assert_close(part, expected)


def test_in_training_the_joint_pass_normalises_by_the_mixture() -> None:
    network = Network(ToyBackbone(), [("a", "b")]).train()
    images = {"a": torch.randn(4, 3, 16, 16) - 2, "b": torch.randn(4, 3, 16, 16) + 2}
    network(images)
    mixture = network.backbone.stem[0](torch.cat(list(images.values()))).mean((0, 2, 3))
    torch.testing.assert_close(network.backbone.stem[1].running_mean, 0.1 * mixture)


@pytest.mark.parametrize(("policy", "agrees"), [("per-task", True), ("shared", False)])
def test_training_and_evaluation_agree_where_sizes_differ_unless_statistics_are_shared(policy, agrees) -> None:
    torch.manual_seed(0)
    network = Network(ToyBackbone(), [("a",), ("b",)], batchnorm=policy)
    network.backbone.body[3].p = 0.0
    images = {"a": torch.randn(8, 3, 16, 16) - 2, "b": 3 * torch.randn(8, 3, 32, 32) + 2}
    network.train()
    for _ in range(100):
        trained = network(images)
    network.eval()
    evaluated = network(images)
    far = max((trained[t][0] - evaluated[t][0]).detach().abs().max().item() for t in images)
    assert (far < 0.1) == agrees


def test_frozen_statistics_stay_bit_exact() -> None:
    network = Network(ToyBackbone(), [("a",), ("b",)], batchnorm="frozen").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network({"a": torch.randn(4, 3, 16, 16), "b": torch.randn(4, 3, 32, 32)})
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_tasks_are_grouped_by_size_unless_their_size_changes() -> None:
    tasks = {"a": {}, "b": {}, "c": {"size": 64}, "d": {}}
    recipe = toy_recipe(tasks)
    recipe["tasks"]["d"]["transform"] = {"name": recipe["tasks"]["d"]["transform"], "fixed": False}
    assert Assembly(Recipe.from_plain(recipe)).groups() == (("a", "b"), ("c",), ("d",))


def test_a_model_runs_with_some_of_its_tasks_alone() -> None:
    model = Assembly(Recipe.from_plain(toy_recipe())).model().eval()
    both = {
        "one": torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        "two": torch.ones(1, 3, 32, 32, dtype=torch.uint8),
    }
    alone = model({"two": both["two"]})
    assert list(alone) == ["two"]
    torch.testing.assert_close(alone["two"]["logits"], model(both)["two"]["logits"])


def test_images_are_normalised_with_the_backbones_mean_and_std() -> None:
    model = Assembly(Recipe.from_plain(toy_recipe())).model().eval()
    seen: list[torch.Tensor] = []
    model.sharing.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model({"one": torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)})
    torch.testing.assert_close(seen[0], torch.full((1, 3, 32, 32), (1 - 0.5) / 0.25))


def test_the_sum_weighs_and_is_differentiated_task_by_task() -> None:
    losses = {"a": torch.tensor(2.0, requires_grad=True), "b": torch.tensor(3.0, requires_grad=True)}
    total = Sum(("a", "b"), weights={"b": 0.5})(losses)
    total.backward()
    assert total.item() == 3.5
    assert [loss.grad.item() for loss in losses.values()] == [1.0, 0.5]


@pytest.mark.parametrize("weights", [{"c": 1.0}, {"a": -1.0}, {"a": float("nan")}])
def test_wrong_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=rf"balancer\.weights\.{next(iter(weights))}"):
        Sum(("a", "b"), weights=weights)


def test_a_pass_updates_the_statistics_of_its_own_group_only() -> None:
    network = Network(ToyBackbone(), [("a",), ("b",)]).train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    network({"b": torch.randn(4, 3, 16, 16)})
    after = network.state_dict()
    means = [key for key in after if key.endswith("running_mean")]
    assert len(means) == 2
    for key in means:
        assert torch.equal(after[key][0], state[key][0])
        assert not torch.equal(after[key][1], state[key][1])
    assert isinstance(network.backbone.stem[1], nn.BatchNorm2d)
