"""Balancers of losses, each by hand or by the property that defines it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from mtframe.balance import DWA, FAMO, STCH, GeometricMean, ImtlL, LogSum, Random, Sum, Uncertainty
from mtframe.errors import RecipeError

TASKS = ("a", "b")


def scalars(**losses: float) -> dict[str, Tensor]:
    return {name: torch.tensor(loss, requires_grad=True) for name, loss in losses.items()}


def weights(balancer: Any, **losses: float) -> list[float]:
    """What each loss's gradient is multiplied by."""
    given = scalars(**losses)
    return [float(part) for part in torch.autograd.grad(balancer(given), list(given.values()))]


def test_sum_weighs_by_the_weights_given() -> None:
    assert weights(Sum(TASKS, weights={"b": 0.25}), a=2.0, b=8.0) == [1.0, 0.25]
    with pytest.raises(RecipeError, match=r"^balancer\.weights\.c: no such task; the tasks are a, b$"):
        Sum(TASKS, weights={"c": 1.0})
    with pytest.raises(RecipeError, match=r"^balancer\.weights\.a: expected a finite weight >= 0, got -1\.0$"):
        Sum(TASKS, weights={"a": -1.0})


def test_random_weights_have_the_mean_1_and_are_drawn_anew() -> None:
    torch.manual_seed(0)
    drawn = torch.tensor([weights(Random(TASKS), a=2.0, b=8.0) for _ in range(500)])
    assert drawn.mean(1).tolist() == pytest.approx([1.0] * 500, rel=1e-5)
    assert drawn.mean(0).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert len(set(drawn[:, 0].tolist())) == 500
    # Of two tasks the log of the weights' ratio is the difference of two normal numbers.
    assert float((drawn[:, 0] / drawn[:, 1]).log().std()) == pytest.approx(math.sqrt(2), rel=0.15)
    assert weights(Random(TASKS, spread=0.0), a=2.0, b=8.0) == [1.0, 1.0]
    with pytest.raises(RecipeError, match=r"^spread: must be 0 or more, got -1$"):
        Random(TASKS, spread=-1.0)


def test_uncertainty_starts_at_half_the_sum_and_ends_at_the_inverse_of_the_losses() -> None:
    balancer = Uncertainty(TASKS)
    assert weights(balancer, a=2.0, b=8.0) == [0.5, 0.5]
    _descend(balancer, {"a": torch.tensor(2.0), "b": torch.tensor(8.0)})
    assert balancer.log_variance_T.tolist() == pytest.approx([math.log(2.0), math.log(8.0)], abs=1e-3)
    assert weights(balancer, a=2.0, b=8.0) == pytest.approx([0.5 / 2, 0.5 / 8], rel=1e-3)


def test_imtl_l_starts_as_the_sum_and_brings_all_losses_to_1() -> None:
    balancer = ImtlL(TASKS)
    assert weights(balancer, a=2.0, b=8.0) == [1.0, 1.0]
    _descend(balancer, {"a": torch.tensor(2.0), "b": torch.tensor(8.0)})
    assert weights(balancer, a=2.0, b=8.0) == pytest.approx([1 / 2, 1 / 8], rel=1e-3)


@pytest.mark.parametrize("balancer", [Uncertainty(TASKS), ImtlL(TASKS)], ids=["uncertainty", "imtl-l"])
def test_what_is_learned_of_a_task_waits_for_it(balancer: Any) -> None:
    balancer({"a": torch.tensor(2.0)}).backward()
    ((parameter),) = balancer.parameters()
    assert parameter.grad.tolist()[0] != 0
    assert parameter.grad.tolist()[1] == 0


def _descend(balancer: Any, losses: Mapping[str, Tensor]) -> None:
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        balancer(losses).backward()
        optimizer.step()


def test_geometric_mean_and_log_sum_by_hand() -> None:
    assert GeometricMean()(scalars(a=2.0, b=8.0)).item() == pytest.approx(4.0)
    # 4 / (2 L).
    assert weights(GeometricMean(), a=2.0, b=8.0) == pytest.approx([1.0, 0.25])
    assert LogSum()(scalars(a=2.0, b=8.0)).item() == pytest.approx(math.log(16.0))
    assert weights(LogSum(), a=2.0, b=8.0) == pytest.approx([0.5, 0.125])


@pytest.mark.parametrize("balancer", [GeometricMean(), LogSum()], ids=["geometric-mean", "log-sum"])
def test_logarithms_have_no_trouble_with_0_and_none_below(balancer: Any) -> None:
    assert torch.isfinite(balancer(scalars(a=0.0, b=8.0)))
    assert all(math.isfinite(weight) for weight in weights(balancer, a=0.0, b=8.0))
    # What is no loss stops the training rather than being turned around.
    assert torch.isnan(balancer(scalars(a=-1.0, b=8.0)))
    assert math.isnan(weights(balancer, a=-1.0, b=8.0)[0])
    with pytest.raises(RecipeError, match=r"^eps: must be above 0, got 0$"):
        type(balancer)(eps=0.0)


def test_dwa_by_hand() -> None:
    balancer = DWA(TASKS, temperature=2.0, period=2)
    # Two periods of equal weights, with means 4 and 2, and then 2 and 2.
    for a, b in ((3.0, 2.0), (5.0, 2.0), (1.0, 1.0), (3.0, 3.0)):
        assert weights(balancer, a=a, b=b) == [1.0, 1.0]
    # Ratios 1/2 and 1: 2 exp(1/4) / (exp(1/4) + exp(1/2)), and the rest.
    share = 2 / (1 + math.exp(0.25))
    for _ in range(2):
        assert weights(balancer, a=9.0, b=9.0) == pytest.approx([share, 2 - share])
    # Means 9 and 9 after 2 and 2: equal again.
    assert weights(balancer, a=1.0, b=1.0) == pytest.approx([1.0, 1.0])


def test_dwa_keeps_what_it_knows_of_a_task_that_is_away() -> None:
    balancer = DWA(TASKS, period=1)
    for a in (4.0, 2.0, 1.0):
        weights(balancer, a=a)
    # a halves; nothing is known of b.
    assert weights(balancer, a=1.0, b=5.0) == pytest.approx([2 / (1 + math.exp(0.25)), 2 - 2 / (1 + math.exp(0.25))])


def test_stch_is_a_smooth_maximum() -> None:
    plain: dict[str, Any] = {"normalise": False}
    # T mu log(e^(2/mu) + e^(8/mu)).
    assert STCH(TASKS, mu=3.0, **plain)(scalars(a=2.0, b=8.0)).item() == pytest.approx(
        2 * 3 * math.log(math.exp(2 / 3) + math.exp(8 / 3))
    )
    assert STCH(TASKS, mu=1e-3, **plain)(scalars(a=2.0, b=8.0)).item() == pytest.approx(2 * 8.0)
    assert weights(STCH(TASKS, mu=1e-2, **plain), a=2.0, b=8.0) == pytest.approx([0.0, 2.0])
    assert weights(STCH(TASKS, mu=1e6, **plain), a=2.0, b=8.0) == pytest.approx([1.0, 1.0], rel=1e-4)
    # 4 * 2 - 0 and 8 - 0 are as bad; the chain rule has the preference, too.
    assert weights(STCH(TASKS, weights={"a": 4.0}, **plain), a=2.0, b=8.0) == pytest.approx([4.0, 1.0])
    assert weights(STCH(TASKS, ideals={"b": 6.0}, **plain), a=2.0, b=8.0) == pytest.approx([1.0, 1.0])


def test_stch_compares_with_the_first_losses() -> None:
    balancer = STCH(TASKS, mu=1.0, warmup=2)
    # Its own first loss: log 1 for both, 1 / L.
    assert weights(balancer, a=2.0, b=8.0) == pytest.approx([1 / 2, 1 / 8], rel=1e-5)
    weights(balancer, a=4.0, b=8.0)
    # Nadirs 3 and 8 from now on. a: log(1.5 / 3), b: log(8 / 8): shares 1/3 and 2/3.
    assert weights(balancer, a=1.5, b=8.0) == pytest.approx([2 / 3 / 1.5, 4 / 3 / 8], rel=1e-5)
    assert weights(balancer, a=1.5, b=8.0) == pytest.approx([2 / 3 / 1.5, 4 / 3 / 8], rel=1e-5)


@pytest.mark.parametrize("below", [5.0 - 1e-6, 3.0])
def test_stch_has_no_measure_for_a_loss_below_its_ideal(below: float) -> None:
    balancer = STCH(TASKS, ideals={"a": 5.0})
    # From its first loss on, which would be its nadir: below the ideal as well, and the quotient positive.
    assert torch.isnan(balancer(scalars(a=below, b=8.0)))
    assert all(math.isnan(weight) for weight in weights(balancer, a=below, b=8.0))
    # It is in no mean: 6 - 5 is the first.
    assert weights(balancer, a=6.0, b=8.0) == pytest.approx([1.0, 1 / 8], rel=1e-5)
    assert all(math.isnan(weight) for weight in weights(balancer, a=below, b=8.0))
    assert torch.isfinite(balancer(scalars(a=5.0, b=8.0)))
    # A difference has no such trouble.
    plain = STCH(TASKS, ideals={"a": 5.0}, normalise=False)
    assert weights(plain, a=3.0, b=-2.0) == pytest.approx([1.0, 1.0])


def test_famo_by_hand() -> None:
    balancer = FAMO(TASKS, lr=0.1, weight_decay=0.0)
    # Equal shares: c z / L with c = 1 / (1/4 + 1/16): 4/5 and 1/5.
    assert weights(balancer, a=2.0, b=8.0) == pytest.approx([0.8, 0.2])
    # a halves: d = (log 2, 0), its gradient z_a (d_a - z'd) = log 2 / 4 and minus that. Adam's first step is its sign.
    found = weights(balancer, a=1.0, b=8.0)
    shares = torch.tensor([-0.1, 0.1]).softmax(0)
    pulls = shares / torch.tensor([1.0, 8.0])
    assert found == pytest.approx((pulls / pulls.sum()).tolist(), rel=1e-5)
    # Nothing moves: the gradient is 0, Adam's moments are 0.9 and 0.999 of what they were.
    first, second = 0.9 * 0.1 * math.log(2) / 4, 0.999 * 0.001 * (math.log(2) / 4) ** 2
    moved = 0.1 + 0.1 * (first / (1 - 0.9**2)) / math.sqrt(second / (1 - 0.999**2))
    shares = torch.tensor([-moved, moved]).softmax(0)
    pulls = shares / torch.tensor([1.0, 8.0])
    assert weights(balancer, a=1.0, b=8.0) == pytest.approx((pulls / pulls.sum()).tolist(), rel=1e-5)


def test_famo_turns_to_the_task_that_learns_slowest() -> None:
    balancer = FAMO(TASKS, weight_decay=0.0)
    for step in range(200):
        found = weights(balancer, a=0.99**step, b=1.0)
    # By the inverse loss alone b would have 0.12 of the weight: a is at 0.136.
    assert found[1] > 0.9
    assert sum(found) == pytest.approx(1.0)


@pytest.mark.parametrize(("rate", "low", "high"), [(1e-3, 0.45, 0.55), (4e-3, 0.3, 0.44)])
def test_famo_sees_through_the_noise_of_batches(rate: float, low: float, high: float) -> None:
    # Losses scatter by a tenth, a hundred times what they fall in a step; b's falls by 1e-3.
    balancer, generator = FAMO(TASKS), torch.Generator().manual_seed(0)
    for step in range(1000):
        noise = torch.exp(0.1 * torch.randn(2, generator=generator))
        balancer({"a": (1 - rate) ** step * noise[0], "b": (1 - 1e-3) ** step * noise[1]})
    share = float(balancer.state_dict()["state"][0].softmax(0)[0])
    assert low < share < high


@pytest.mark.parametrize("negative", [-1e-8, -0.5])
def test_famo_does_not_hide_a_loss_that_has_no_logarithm(negative: float) -> None:
    balancer = FAMO(TASKS)
    assert torch.isfinite(balancer(scalars(a=2.0, b=0.0)))
    assert torch.isnan(balancer(scalars(a=2.0, b=negative)))
    assert torch.isnan(FAMO(TASKS)(scalars(b=negative)))


def test_famo_of_one_task_or_a_task_that_is_away() -> None:
    balancer = FAMO(TASKS)
    assert weights(balancer, a=2.0) == [1.0]
    assert weights(balancer, b=3.0) == [1.0]
    assert weights(balancer, a=2.0, b=2.0) == pytest.approx([0.5, 0.5], abs=0.05)


@pytest.mark.parametrize(
    "make",
    [
        Random,
        Uncertainty,
        ImtlL,
        lambda tasks: LogSum(),
        lambda tasks: GeometricMean(),
        lambda tasks: DWA(tasks, period=2),
        STCH,
        FAMO,
    ],
    ids=["random", "uncertainty", "imtl-l", "log-sum", "geometric-mean", "dwa", "stch", "famo"],
)
def test_a_step_under_autocast_is_not_one_of_half_precision(make: Any) -> None:
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        balancer = make(TASKS)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append([weights(balancer, a=1 / (1 + 0.3 * step), b=2.0 - 0.1 * step) for step in range(6)])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DWA(TASKS, temperature=0.0), "temperature: must be above 0, got 0"),
        (lambda: DWA(TASKS, period=0), "period: must be 1 or more, got 0"),
        (lambda: STCH(TASKS, mu=0.0), "mu: must be above 0, got 0"),
        (lambda: STCH(TASKS, warmup=0), "warmup: must be 1 or more, got 0"),
        (lambda: STCH(TASKS, ideals={"c": 1.0}), "balancer.ideals.c: no such task; the tasks are a, b"),
        (lambda: STCH(TASKS, ideals={"a": math.inf}), "balancer.ideals.a: expected a finite ideal, got inf"),
        (lambda: FAMO(TASKS, lr=-1.0), "lr: must be 0 or more, got -1"),
        (lambda: FAMO(TASKS, weight_decay=-1.0), "weight_decay: must be 0 or more, got -1"),
    ],
)
def test_options_are_checked(make: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make()
    assert str(caught.value) == message
