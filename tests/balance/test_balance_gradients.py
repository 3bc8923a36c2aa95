"""Balancers of gradients, each by the property that defines it."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from jacobians import independent, jacobians, random_rows, update, weigh
from scipy.optimize import nnls
from torch import Tensor

from mtframe.balance import (
    MGDA,
    AlignedMTL,
    CAGrad,
    FairGrad,
    GradDrop,
    GradientNorm,
    GradNorm,
    GradVac,
    ImtlG,
    NashMTL,
    PCGrad,
    UPGrad,
)
from mtframe.errors import RecipeError

fast = settings(max_examples=40, deadline=None)

# Two tasks in conflict: g_1'g_2 = -1, |g_1|² = 1, |g_2|² = 5.
CONFLICT = torch.tensor([[1.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)


@fast
@given(jacobians())
def test_mgda_makes_no_task_worse_and_is_0_only_where_none_can_be_helped(rows: Tensor) -> None:
    found = update(MGDA(), rows)
    assert (rows @ found >= found @ found - 1e-9).all()


def test_mgda_of_two_tasks_by_hand() -> None:
    # The point of the line from (1, 0) to (-1, 2) that is nearest to 0: (1/2, 1/2), a quarter of the way.
    assert weigh(MGDA(), CONFLICT).tolist() == pytest.approx([0.75, 0.25])
    # Of two orthogonal gradients, weights by the inverse square of the length.
    assert weigh(MGDA(), torch.diag(torch.tensor([1.0, 2.0]).double())).tolist() == pytest.approx([0.8, 0.2])


@fast
@given(jacobians(smallest=2))
def test_cagrad_keeps_its_bound_and_helps_the_worst_task_more_than_the_mean(rows: Tensor) -> None:
    for c in (0.2, 0.4, 0.8):
        mean, found = rows.mean(0), update(CAGrad(c=c), rows)
        assert (found - mean).norm() <= c * mean.norm() * (1 + 1e-6) + 1e-12
        assert (rows @ found).min() >= (rows @ mean).min() - 1e-9


def test_cagrad_of_two_tasks_by_hand() -> None:
    # Orthogonal unit gradients: symmetric, so d goes along the mean, and as far as it may.
    rows = torch.eye(2, dtype=torch.float64)
    assert weigh(CAGrad(c=0.5), rows).tolist() == pytest.approx([0.75, 0.75])
    assert weigh(CAGrad(c=0.0), CONFLICT).tolist() == pytest.approx([0.5, 0.5])


@fast
@given(jacobians())
def test_upgrad_makes_no_task_worse_and_is_the_mean_of_projections(rows: Tensor) -> None:
    found = update(UPGrad(), rows)
    assert (rows @ found >= -1e-9 * rows.square().sum()).all()
    # Onto the d with d'g >= 0 for all rows g: g + A'x, x >= 0, as short as can be (Moreau).
    projections = [row.numpy() + rows.numpy().T @ nnls(rows.numpy().T, -row.numpy())[0] for row in rows]
    assert found.tolist() == pytest.approx((sum(projections) / len(rows)).tolist(), abs=1e-8)


def test_upgrad_of_two_tasks_by_hand() -> None:
    # (1, 0) - (-1, 2) (-1) / 5 and (-1, 2) - (1, 0) (-1): weights (1, 1/5) and (1, 1), halved.
    assert weigh(UPGrad(), CONFLICT).tolist() == pytest.approx([1.0, 0.6])
    assert weigh(UPGrad(), torch.eye(3).double()).tolist() == pytest.approx([1 / 3] * 3)


@fast
@given(jacobians(smallest=2))
def test_imtl_g_has_equal_projections_and_helps_every_task(rows: Tensor) -> None:
    if not independent(rows):
        return
    found = weigh(ImtlG(), rows)
    assert abs(float(found.sum())) == pytest.approx(1.0)
    projections = (rows / rows.norm(dim=1, keepdim=True)) @ (found @ rows)
    assert projections.tolist() == pytest.approx(
        [float(projections[0])] * len(rows), abs=1e-7 * float(found.abs().max())
    )


def test_imtl_g_of_two_tasks_by_hand() -> None:
    # Orthogonal: weights by the inverse of the length.
    assert weigh(ImtlG(), torch.diag(torch.tensor([1.0, 2.0]).double())).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_imtl_g_of_opposite_gradients_is_an_update_of_0() -> None:
    rows = torch.tensor([[1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    balancer = ImtlG()
    assert update(balancer, rows).tolist() == pytest.approx([0.0, 0.0])
    assert balancer.failures == 0


@fast
@given(jacobians())
def test_nash_weights_are_the_bargaining_solution(rows: Tensor) -> None:
    if not independent(rows):
        return
    gram, balancer = rows @ rows.T, NashMTL(max_norm=0.0)
    found = weigh(balancer, rows)
    scaled = gram / torch.linalg.matrix_norm(gram)
    assert (scaled @ found).tolist() == pytest.approx((1 / found).tolist(), rel=1e-7)
    assert balancer.failures == 0


def test_nash_of_orthogonal_gradients_by_hand() -> None:
    # G = diag(1, 4), |G| = sqrt(17): w_t = 17^(1/4) / |g_t|.
    rows = torch.diag(torch.tensor([1.0, 2.0]).double())
    expected = [17**0.25, 17**0.25 / 2]
    assert weigh(NashMTL(max_norm=0.0), rows).tolist() == pytest.approx(expected)
    assert float(update(NashMTL(max_norm=0.5), rows).norm()) == pytest.approx(0.5)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 2.0, 5.0])
def test_fairgrad_solves_its_equation(alpha: float) -> None:
    for seed in range(5):
        rows, balancer = random_rows(3, seed=seed), FairGrad(alpha=alpha)
        found = weigh(balancer, rows)
        assert (rows @ rows.T @ found).tolist() == pytest.approx((found ** (-1 / alpha)).tolist(), rel=1e-7)
        assert balancer.failures == 0


def test_fairgrad_of_known_alphas() -> None:
    rows = torch.diag(torch.tensor([1.0, 2.0]).double())
    assert weigh(FairGrad(alpha=0.0), rows).tolist() == [1.0, 1.0]
    # 4 w = 1 / w; 4 w = w^(-1/2); 4 w = w^-2.
    assert float(weigh(FairGrad(alpha=1.0), rows)[1]) == pytest.approx(0.5)
    assert float(weigh(FairGrad(alpha=2.0), rows)[1]) == pytest.approx(4 ** (-2 / 3))
    assert float(weigh(FairGrad(alpha=0.5), rows)[1]) == pytest.approx(4 ** (-1 / 3))
    # Towards infinity all improve alike.
    improvements = rows @ update(FairGrad(alpha=1e4), rows)
    assert improvements.tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


@pytest.mark.parametrize("scale", ["min", "rmse", "median"])
def test_aligned_gradients_have_the_condition_number_1(scale: Any) -> None:
    rows = random_rows(3)
    singular = torch.linalg.svdvals(rows)
    wanted = {"min": singular[2], "rmse": (singular**2).mean().sqrt(), "median": singular[1]}[scale]
    # The orthogonal matrix nearest to the rows, times the scale.
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    aligned = float(wanted) * left @ right
    assert float(torch.linalg.cond(aligned)) == pytest.approx(1.0)
    assert update(AlignedMTL(scale=scale), rows).tolist() == pytest.approx(aligned.mean(0).tolist())


def test_aligned_directions_without_extent_stay_so() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert update(AlignedMTL(), rows).tolist() == pytest.approx([1.0, 0.0])


def test_pcgrad_of_two_tasks_by_hand() -> None:
    # Worked in the plane: g_1' = (1, 0) + (-1, 2) / 5 = (4/5, 2/5), g_2' = (-1, 2) + (1, 0) = (0, 2).
    assert update(PCGrad(), CONFLICT).tolist() == pytest.approx([0.8, 2.4])
    assert weigh(PCGrad(), torch.eye(2).double()).tolist() == [1.0, 1.0]


def test_pcgrad_of_three_tasks_depends_on_the_order_which_is_the_generator_s() -> None:
    rows = torch.tensor([[1.0, 0.1], [-1.0, 0.5], [0.2, -1.0]], dtype=torch.float64)
    torch.manual_seed(0)
    first = [tuple(update(PCGrad(), rows).tolist()) for _ in range(20)]
    assert len(set(first)) > 1
    torch.manual_seed(0)
    assert [tuple(update(PCGrad(), rows).tolist()) for _ in range(20)] == first
    # Each result is one of those that the orders give, by projecting vectors.
    possible = {tuple(round(value, 9) for value in _surgery(rows, orders)) for orders in _orders()}
    assert {tuple(round(value, 9) for value in found) for found in first} <= possible


def _orders() -> list[list[tuple[int, int]]]:
    pairs = [[(1, 2), (2, 1)], [(0, 2), (2, 0)], [(0, 1), (1, 0)]]
    return [[first, second, third] for first in pairs[0] for second in pairs[1] for third in pairs[2]]


def _surgery(rows: Tensor, orders: list[tuple[int, int]]) -> list[float]:
    total = torch.zeros_like(rows[0])
    for row, others in zip(rows, orders, strict=True):
        for other in others:
            row = row - (row @ rows[other]).clamp(max=0) / rows[other].square().sum() * rows[other]
        total = total + row
    return total.tolist()


def test_gradvac_brings_the_cosine_to_its_target() -> None:
    balancer = GradVac(("a", "b"), beta=0.0)
    balancer.targets_TT.fill_(0.3)
    for task in (0, 1):
        # Row by row: what it makes of one task's gradient is what the sum has besides the other's own.
        alone = GradVac(("a", "b"), beta=0.0)
        alone.targets_TT[task, 1 - task] = 0.3
        alone.targets_TT[1 - task, task] = -1.0
        changed = update(alone, CONFLICT) - CONFLICT[1 - task]
        cosine = torch.cosine_similarity(changed, CONFLICT[1 - task], dim=0)
        assert float(cosine) == pytest.approx(0.3)


def test_gradvac_learns_its_targets_and_starts_as_surgery() -> None:
    balancer = GradVac(("a", "b"), beta=0.1)
    # Targets of 0: what opposes is taken away, as PCGrad does.
    assert weigh(balancer, CONFLICT).tolist() == pytest.approx(weigh(PCGrad(), CONFLICT).tolist())
    cosine = -1 / math.sqrt(5)
    assert float(balancer.targets_TT[0, 1]) == pytest.approx(0.1 * cosine)
    assert weigh(balancer, torch.eye(2).double()).tolist() == pytest.approx([1.0, 1.0])
    assert float(balancer.targets_TT[0, 1]) == pytest.approx(0.09 * cosine)


@pytest.mark.parametrize(("beta", "steps"), [(1.0, 1), (0.5, 60)])
def test_gradvac_of_gradients_that_were_identical_pulls_a_bounded_length(beta: float, steps: int) -> None:
    balancer = GradVac(("a", "b"), beta=beta)
    for _ in range(steps):
        assert weigh(balancer, torch.ones(2, 3).double()).tolist() == [1.0, 1.0]
    assert float(balancer.targets_TT[0, 1]) == 1
    # A cosine of 1/2, brought up to 0.999 instead of 1: both get sqrt(3/4) 0.999 / sqrt(1 - 0.999²) - 1/2 of the other.
    rows = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]]).double()
    pull = math.sqrt(0.75) * 0.999 / math.sqrt(1 - 0.999**2) - 0.5
    assert weigh(balancer, rows).tolist() == pytest.approx([1 + pull, 1 + pull])
    # What the target learns from is not capped.
    assert float(balancer.targets_TT[0, 1]) == pytest.approx(1 - beta / 2)


def test_gradvac_takes_gradients_that_rounding_tells_apart_for_identical() -> None:
    balancer = GradVac(("a", "b"), beta=0.0)
    balancer.targets_TT.fill_(1 - 1e-8)
    assert weigh(balancer, torch.tensor([[1.0, 0.0], [1.0, 1e-3]]).double()).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("length", "expected"), [("max", 2.0), ("mean", 1.5), ("min", 1.0)])
def test_gradient_norm_makes_all_equally_long(length: Any, expected: float) -> None:
    rows = torch.diag(torch.tensor([1.0, 2.0]).double())
    scaled = weigh(GradientNorm(length=length), rows)[:, None] * rows
    assert scaled.norm(dim=1).tolist() == pytest.approx([expected, expected])


def test_gradnorm_by_hand() -> None:
    balancer, rows = GradNorm(("a", "b"), alpha=1.0, lr=0.1), torch.diag(torch.tensor([1.0, 3.0]).double())
    assert weigh(balancer, rows, torch.tensor([2.0, 4.0]).double()).tolist() == [1.0, 1.0]
    # Lengths 1 and 3, mean 2, equal rates: a's slope is -1/2, b's 3/2: 1.05 and 0.85, over their mean 0.95.
    assert balancer.weights_T.tolist() == pytest.approx([1.05 / 0.95, 0.85 / 0.95])
    # Losses halve and stay: rates 1/2 and 1, over their mean 2/3 and 4/3. Lengths 1.05, 2.55 over .95, mean 1.8/.95:
    # wanted 1.2, 2.4 over .95; slopes -1 / (1.8 / .95), 3 / (1.8 / .95).
    weigh(balancer, rows, torch.tensor([1.0, 4.0]).double())
    moved = torch.tensor([1.05 + 0.1 * 0.95**2 / 1.8, 0.85 - 0.3 * 0.95**2 / 1.8])
    assert balancer.weights_T.tolist() == pytest.approx((moved / moved.mean()).tolist())


def test_gradnorm_evens_out_lengths_and_never_turns_a_task_around() -> None:
    balancer, rows = GradNorm(("a", "b"), alpha=0.0, lr=0.01), torch.diag(torch.tensor([1.0, 100.0]).double())
    for _ in range(2000):
        weights = weigh(balancer, rows)
        assert (weights > 0).all()
    # Around 100, as near as a step of b's, at most lr times T, allows beside its weight of 2/101.
    assert 10 < float(weights[0] / weights[1]) < 2000
    assert float(weights.mean()) == pytest.approx(1.0)
    assert GradNorm.weighs_heads


def test_graddrop_keeps_one_sign_with_the_probability_of_its_purity() -> None:
    torch.manual_seed(0)
    # Purities: (1 + 2/4) / 2 = 3/4; 1 of agreeing gradients; no gradient at all.
    rows = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 2.0, 0.0]]).repeat_interleave(10_000, dim=1)
    found = GradDrop().combine(rows, torch.ones(2)).view(3, 10_000)
    assert set(found[0].tolist()) == {3.0, -1.0}
    assert float((found[0] == 3.0).double().mean()) == pytest.approx(0.75, abs=0.02)
    assert set(found[1].tolist()) == {3.0}
    assert set(found[2].tolist()) == {0.0}


def test_graddrop_leaks() -> None:
    rows = torch.tensor([[3.0], [-1.0]])
    assert GradDrop(leak=1.0).combine(rows, torch.ones(2)).tolist() == [2.0]
    # 0.25 * 2 + 0.75 * 3 or * -1.
    assert float(GradDrop(leak=0.25).combine(rows, torch.ones(2))) in (2.75, -0.25)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CAGrad(c=-0.1), "c: must be 0 or more, got -0.1"),
        (lambda: NashMTL(max_norm=-1.0), "max_norm: must be 0 or more, got -1"),
        (lambda: FairGrad(alpha=0.01), "alpha: must be 0, or 0.1 or more, got 0.01"),
        (lambda: GradVac(("a",), beta=1.5), "beta: must be 0 to 1, got 1.5"),
        (lambda: GradNorm(("a",), lr=0.0), "lr: must be above 0, got 0"),
        (lambda: GradDrop(leak=2.0), "leak: must be 0 to 1, got 2"),
    ],
)
def test_options_are_checked(make: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{message}$"):
        make()


def test_a_solver_that_fails_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    opposite = torch.tensor([[1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    balancer = NashMTL()
    with caplog.at_level(logging.WARNING, logger="mtframe.balance"):
        for _ in range(5):
            assert float(update(balancer, opposite).norm()) <= 1e-6
    assert balancer.failures == 5
    # The first, second and fourth time.
    assert [record.name for record in caplog.records] == ["mtframe.balance"] * 3
    assert caplog.messages[2] == (
        "balancer nash-mtl: the solver did not converge (4 times so far); its best iterate is used"
    )
