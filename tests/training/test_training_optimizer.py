"""An optimiser's state is compared with the recipe's, for every optimiser that a recipe can name."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from mtframe.errors import CheckpointError, RecipeError
from mtframe.recipe import TrainOptions
from mtframe.training._optim import check_optimizer, make_optimizer

# Lookahead keeps more from its sixth on.
STEPS = 6

# It compiles itself, for 15 seconds.
QUICK = [name for name in list_optimizers() if name != "kron"]


def trained(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A small network, and its optimiser's state after a few steps, as it is saved and read again."""
    torch.manual_seed(0)
    # Of the convolutions, one that adafactor factors by its sizes, and one that it does not.
    network = nn.Sequential(
        nn.Conv2d(3, 36, 3, stride=2), nn.BatchNorm2d(36), nn.Conv2d(36, 40, 1), nn.Flatten(), nn.Linear(40 * 9, 4)
    )
    optimizer = make_optimizer(network, None, TrainOptions(optimizer=name, lr=1e-3))
    for _ in range(STEPS):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 8, 8)).square().mean().backward()
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        optimizer.step()
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    return network, torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("prefix", ["", "lookahead_"])
@pytest.mark.parametrize("names", [QUICK, pytest.param(["kron"], marks=pytest.mark.slow)], ids=["quick", "compiled"])
def test_what_an_optimiser_has_kept_is_its_own(prefix: str, names: list[str]) -> None:
    tried = 0
    for name in names:
        with warnings.catch_warnings():
            # Of optimisers that torch will change.
            warnings.simplefilter("ignore")
            try:
                network, state = trained(prefix + name)
            except RecipeError:
                # It needs another package, a GPU, or second derivatives.
                continue
            optimizer = make_optimizer(network, None, TrainOptions(optimizer=prefix + name, lr=1e-3))
        check_optimizer(state, optimizer, STEPS)
        optimizer.load_state_dict(state)
        tried += 1
    assert tried > 0.7 * len(names)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("adamw", "weight_decay", 0.9), ("adamw", "betas", (0.5, 0.5)), ("sgd", "momentum", 0.1),
        ("lamb", "step", torch.tensor(STEPS + 1.0)), ("lamb", "step", -1), ("lamb", "step", "3"),
        ("lookahead_adamw", "lookahead_step", 99), ("adamw", "evil", 1),
    ],
)  # fmt: skip
def test_another_option_or_count_is_told(name: str, key: str, value: object) -> None:
    network, state = trained(name)
    optimizer = make_optimizer(network, None, TrainOptions(optimizer=name, lr=1e-3))
    check_optimizer(state, optimizer, STEPS)
    changed = copy.deepcopy(state)
    changed["param_groups"][0][key] = value
    with pytest.raises(CheckpointError, match=f"the optimiser's (groups|{key})"):
        check_optimizer(changed, optimizer, STEPS)


@pytest.mark.parametrize("name", ["adafactor", "lookahead_adafactorbv", "adamw", "lookahead_lion"])
def test_other_values_of_a_parameter_are_told_also_where_no_other_has_its_sizes(name: str) -> None:
    network, state = trained(name)
    for number, its in state["state"].items():
        for key, value in its.items():
            others: list[object] = ["text"]
            if isinstance(value, torch.Tensor):
                others += [value.double(), value.new_zeros((*value.shape, 2)), value.new_full(value.shape, torch.nan)]
            if key != "lookahead_slow_buff":
                others.append(None)
            for other in others:
                changed = copy.deepcopy(state)
                changed["state"][number][key] = other
                if other is None:
                    del changed["state"][number][key]
                optimizer = make_optimizer(network, None, TrainOptions(optimizer=name, lr=1e-3))
                with pytest.raises(CheckpointError, match=f"the optimiser.* of parameter {number}"):
                    check_optimizer(changed, optimizer, STEPS)
