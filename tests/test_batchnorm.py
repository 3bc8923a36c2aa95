"""BatchNorm policies for tasks that pass through one backbone separately."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mtframe.model import GroupStatistics, freeze_statistics, split_statistics

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def two_tasks() -> tuple[Tensor, Tensor]:
    """Batches of two tasks: small dark images and large, bright, contrasty ones."""
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(16, 3, 8, 8, generator=generator) * 0.5 - 2
    large = torch.randn(4, 3, 24, 24, generator=generator) * 3 + 4
    return small, large


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), BatchNormAct2d(4))


def train_evaluate_gap(model: nn.Module, *, split: bool) -> float:
    """Largest difference, over both tasks, between a batch's outputs in training and in evaluation mode."""
    batches = two_tasks()
    statistics = split_statistics(model, 2) if split else GroupStatistics(2)
    for mode in (True,) * 100 + (False,):
        model.train(mode)
        outputs = []
        for group, images in enumerate(batches):
            with statistics.of(group):
                outputs.append(model(images).detach())
        if mode:
            trained = outputs
    return max((one - other).abs().max().item() for one, other in zip(outputs, trained, strict=True))


def test_per_group_statistics_make_training_and_evaluation_agree() -> None:
    # What is left is Bessel's correction: the running variance is the unbiased one, n / (n - 1) times the
    # batch's.
    assert train_evaluate_gap(network(), split=True) < 0.03


def test_shared_statistics_of_separate_passes_do_not_agree() -> None:
    assert train_evaluate_gap(network(), split=False) > 0.5


def test_statistics_are_those_of_the_chosen_groups_batches() -> None:
    model = nn.BatchNorm2d(3, momentum=None)
    statistics = split_statistics(model, 2)
    small, large = two_tasks()
    with statistics.of(1):
        model(large)
        model(large)
        assert model.num_batches_tracked == 2
        assert model.running_mean == pytest.approx(large.mean(dim=(0, 2, 3)), rel=1e-5)
        assert model.running_var == pytest.approx(_unbiased(large), rel=1e-4)
    with statistics.of(0):
        assert model.num_batches_tracked == 0
        assert torch.equal(model.running_mean, torch.zeros(3))
        model(small)
        assert model.running_mean == pytest.approx(small.mean(dim=(0, 2, 3)), rel=1e-5)
    assert model.num_batches_tracked.tolist() == [1, 2]


def _unbiased(images: Tensor) -> Tensor:
    return images.transpose(0, 1).flatten(1).var(dim=1)


def test_all_groups_start_from_the_given_statistics() -> None:
    model = network()
    model(two_tasks()[1])
    expected = model.eval()(two_tasks()[0])
    statistics = split_statistics(model, 3)
    for group in range(3):
        with statistics.of(group):
            assert torch.equal(model(two_tasks()[0]), expected)


def test_affine_weights_stay_shared() -> None:
    model = network()
    weights = {name: id(parameter) for name, parameter in model.named_parameters()}
    split_statistics(model, 2)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == weights


class Split(nn.Module):
    """A network and its statistics: what a sharing scheme holds."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()
        self.statistics = split_statistics(self.network, 2)

    def forward(self, images: Tensor, group: int) -> Tensor:
        with self.statistics.of(group):
            return self.network(images)


def trained_split_network() -> Split:
    model = Split()
    for group, images in enumerate(two_tasks()):
        model(images, group)
    return model


def outputs_of_groups(model: Split) -> Tensor:
    model.eval()
    return torch.cat([model(images, group).flatten() for group, images in enumerate(two_tasks())])


def test_state_dict_has_each_groups_statistics_once(tmp_path) -> None:
    model = trained_split_network()
    state = model.network.state_dict()
    assert state.keys() == network().state_dict().keys()
    assert [tuple(state[f"1.{name}"].shape) for name in STATISTICS] == [(2, 6), (2, 6), (2,)]
    save_file(state, tmp_path / "model.safetensors")  # refuses tensors that share memory
    other = Split()
    other.network.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(outputs_of_groups(other), outputs_of_groups(model))


def test_a_checkpoint_without_groups_does_not_load_silently() -> None:
    model = network()
    split_statistics(model, 2)
    with pytest.raises(RuntimeError, match=r"size mismatch for 1\.running_mean"):
        model.load_state_dict(network().state_dict())


def test_a_copy_has_statistics_of_its_own_and_chooses_for_itself() -> None:
    model = trained_split_network()
    before = outputs_of_groups(model)
    average = copy.deepcopy(model)
    model.train()
    with average.statistics.of(1):
        model(two_tasks()[0], 0)
    assert torch.equal(outputs_of_groups(average), before)
    assert not torch.equal(outputs_of_groups(model), before)
    state, copied = model.network.state_dict(), average.network.state_dict()
    assert not torch.equal(state["1.running_mean"][0], copied["1.running_mean"][0])
    assert torch.equal(state["1.running_mean"][1], copied["1.running_mean"][1])


def test_training_goes_on_in_the_buffers_after_a_move() -> None:
    model = trained_split_network().to(torch.float64)
    before = model.network.state_dict()["1.running_mean"].clone()
    model.train()(two_tasks()[1].double(), 1)
    after = model.network.state_dict()["1.running_mean"]
    assert after.dtype == torch.float64
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


def test_two_passes_before_one_backward() -> None:
    model = trained_split_network().train()
    total = torch.zeros(())
    for group, images in enumerate(two_tasks()):
        total = total + model(images, group).square().mean()
    total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_activations_that_are_computed_again_count_once() -> None:
    """A backward pass calls the layers anew, when no group is chosen any more."""

    class Checkpointed(Split):
        def forward(self, images: Tensor, group: int) -> Tensor:
            with self.statistics.of(group):
                return checkpoint(self.network, images, use_reentrant=False)

    found = []
    for kind in (Split, Checkpointed):
        model = kind().train()
        model.network[4].momentum = None
        sum(model(images, group).square().sum() for group, images in enumerate(two_tasks())).backward()
        found.append({n: p.grad for n, p in model.named_parameters()} | model.state_dict())
    torch.testing.assert_close(found[1], found[0])
    assert found[1]["network.4.num_batches_tracked"].tolist() == [1, 1]


def test_outside_of_a_group_there_are_no_statistics_to_evaluate_with() -> None:
    model = trained_split_network().eval()
    with pytest.raises(
        RuntimeError, match=r"by group of tasks, .* run the network within `with statistics\.of\(group\)`"
    ):
        model.network(two_tasks()[0])


def test_compiled_passes_use_the_statistics_of_their_group() -> None:
    model = trained_split_network()
    expected = outputs_of_groups(model)
    # Without a break: the compiler can follow what a pass looks up.
    model.compile(backend="aot_eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(outputs_of_groups(model), expected)


def test_norms_keep_their_type() -> None:
    model = network()
    split_statistics(model, 2)
    freeze_statistics(model)
    assert isinstance(model[1], nn.BatchNorm2d)
    assert isinstance(model[4], BatchNormAct2d)
    assert type(model[1]).__name__ == "BatchNorm2d"


def test_a_network_without_batchnorm_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, track_running_stats=False))
    with split_statistics(model, 2).of(1):
        assert model(two_tasks()[0]).shape == (16, 4, 8, 8)


def test_wrong_calls() -> None:
    model = network()
    with pytest.raises(ValueError, match="at least 1, not 0"):
        split_statistics(model, 0)
    statistics = split_statistics(model, 2)
    with pytest.raises(ValueError, match="already split"):
        split_statistics(model, 2)
    with pytest.raises(IndexError, match=r"group 2 is not one of 0\.\.1"):
        statistics.of(2)


def test_frozen_statistics_stay_bit_identical_in_training_while_weights_learn() -> None:
    model = network()
    model(two_tasks()[1])
    freeze_statistics(model)
    copied = copy.deepcopy(model)
    for frozen in (model, copied):
        before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
        frozen.train()
        assert frozen.training
        assert not frozen[1].training
        optimizer = torch.optim.SGD(frozen.parameters(), lr=0.1)
        # Not a mean of squares alone: with normalised outputs its gradient would be close to zero.
        (frozen(two_tasks()[0]) * torch.randn(16, 4, 6, 6)).sum().backward()
        optimizer.step()
        after = frozen.state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed == {name for name, _ in frozen.named_parameters()}


def test_frozen_norm_uses_running_statistics_in_training() -> None:
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0)
    freeze_statistics(norm)
    norm.train()
    assert norm(torch.full((2, 1, 1, 1), 7.0)).flatten().tolist() == pytest.approx([2.0, 2.0], abs=1e-4)
