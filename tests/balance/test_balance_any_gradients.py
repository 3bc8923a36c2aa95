"""What holds for every balancer of gradients: scale, order, and gradients that make trouble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobians import independent, jacobians, random_rows, update, weigh
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

fast = settings(max_examples=25, deadline=None)

MAKERS: dict[str, Callable[[tuple[str, ...]], Any]] = {
    "gradient-norm": lambda tasks: GradientNorm(),
    "gradnorm": lambda tasks: GradNorm(tasks),
    "pcgrad": lambda tasks: PCGrad(),
    "gradvac": lambda tasks: GradVac(tasks),
    "mgda": lambda tasks: MGDA(),
    "cagrad": lambda tasks: CAGrad(),
    "imtl-g": lambda tasks: ImtlG(),
    "nash-mtl": lambda tasks: NashMTL(max_norm=0.0),
    "aligned-mtl": lambda tasks: AlignedMTL(),
    "fairgrad": lambda tasks: FairGrad(),
    "fairgrad-2": lambda tasks: FairGrad(alpha=2.0),
    "upgrad": lambda tasks: UPGrad(),
}

each = pytest.mark.parametrize("name", MAKERS)


def make(name: str, tasks: int) -> Any:
    return MAKERS[name](tuple("abcdefgh"[:tasks]))


@each
@fast
@given(jacobians(), st.sampled_from([1e-12, 1e-3, 1e5, 1e12]))
def test_a_common_factor_changes_no_direction(name: str, rows: Tensor, factor: float) -> None:
    if not independent(rows):
        return
    torch.manual_seed(0)
    first = update(make(name, len(rows)), rows)
    torch.manual_seed(0)
    scaled = update(make(name, len(rows)), rows * factor)
    assert (scaled / scaled.norm()).tolist() == pytest.approx((first / first.norm()).tolist(), abs=1e-6)


@pytest.mark.parametrize("name", ["nash-mtl", "fairgrad", "imtl-g", "gradient-norm"])
@fast
@given(jacobians(), st.lists(st.integers(-6, 6), min_size=5, max_size=5))
def test_a_task_s_unit_does_not_matter_to_those_that_promise_it(name: str, rows: Tensor, powers: list[int]) -> None:
    if not independent(rows):
        return
    units = torch.tensor([10.0**power for power in powers[: len(rows)]], dtype=torch.float64)[:, None]
    first, other = update(make(name, len(rows)), rows), update(make(name, len(rows)), rows * units)
    assert (other / other.norm()).tolist() == pytest.approx((first / first.norm()).tolist(), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in ("pcgrad", "gradvac")])
@fast
@given(jacobians(), st.randoms())
def test_the_order_of_tasks_does_not_matter(name: str, rows: Tensor, random: Any) -> None:
    if not independent(rows):
        return
    order = list(range(len(rows)))
    random.shuffle(order)
    losses = torch.arange(1, len(rows) + 1, dtype=torch.float64)
    first, other = make(name, len(rows)), make(name, len(rows))
    for factor in (1.0, 0.5):
        expected = weigh(first, rows, losses * factor)[order]
        found = weigh(other, rows[order], losses[order] * factor)
        assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-7)


TROUBLE = {
    "all-zero": torch.zeros(3, 4),
    "one-zero": torch.tensor([[1.0, 2.0], [0.0, 0.0], [-1.0, 1.0]]),
    "identical": torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]),
    "opposite": torch.tensor([[1.0, 2.0], [-1.0, -2.0]]),
    "opposite-unequal": torch.tensor([[1.0, 2.0], [-3.0, -6.0]]),
    "one-task": torch.tensor([[1.0, 2.0]]),
    "tiny": random_rows(3) * 1e-12,
    "huge": random_rows(3) * 1e12,
    "tiny-and-huge": random_rows(3) * torch.tensor([[1e-12], [1.0], [1e12]]),
    "nearly-dependent": random_rows(1).repeat(3, 1) + 1e-7 * random_rows(3, seed=1),
    "nearly-opposite": random_rows(1) * torch.tensor([[1.0], [-1.0]]) + 1e-7 * random_rows(2, seed=1),
    "more-tasks-than-parameters": random_rows(6, 2),
}


@each
@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_gives_finite_weights_and_no_update_out_of_proportion(name: str, trouble: str) -> None:
    rows = TROUBLE[trouble].double()
    torch.manual_seed(0)
    balancer = make(name, len(rows))
    for _ in range(3):
        weights = weigh(balancer, rows)
        assert weights.dtype == torch.float64
        assert weights.shape == (len(rows),)
        assert weights.isfinite().all()
    assert (weights @ rows).isfinite().all()
    if not rows.any():
        assert getattr(balancer, "failures", 0) == 0


VARIANTS = {
    "nash-mtl-limited": lambda tasks: NashMTL(),
    "fairgrad-tenth": lambda tasks: FairGrad(alpha=0.1),
    "fairgrad-fifth": lambda tasks: FairGrad(alpha=0.2),
    "fairgrad-100": lambda tasks: FairGrad(alpha=100.0),
    "cagrad-far": lambda tasks: CAGrad(c=3.0),
    "aligned-mtl-median": lambda tasks: AlignedMTL(scale="median"),
    "aligned-mtl-rmse": lambda tasks: AlignedMTL(scale="rmse"),
}


@pytest.mark.parametrize("name", [*MAKERS, *VARIANTS])
@fast
@given(jacobians(scales=True), st.booleans(), st.booleans())
def test_dependent_gradients_of_any_lengths_give_finite_weights(
    name: str, rows: Tensor, opposite: bool, single: bool
) -> None:
    if opposite:
        rows = torch.cat([rows, -1e-3 * rows[:1]])
    # As those of a step are, whose inner products are then not quite those of any vectors.
    rows = rows.float() if single else rows
    balancer = (MAKERS | VARIANTS)[name](tuple("abcdefgh"[: len(rows)]))
    ones = torch.ones(len(rows), dtype=torch.float64)
    assert balancer.weigh((rows @ rows.T).double(), ones).isfinite().all()


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_a_singular_system_is_counted_as_not_solved(alpha: float) -> None:
    rows = [[47026.0], [1116852.0], [-0.3828], [-2.662e-05], [-5718.0], [-0.004358]]
    balancer = FairGrad(alpha=alpha)
    assert weigh(balancer, torch.tensor(rows, dtype=torch.float64)).isfinite().all()
    assert balancer.failures == 1


@each
def test_one_task_goes_along_its_own_gradient(name: str) -> None:
    rows = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    found = update(make(name, 1), rows)
    assert (found / found.norm()).tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("name", ["mgda", "cagrad", "upgrad"])
@pytest.mark.parametrize("trouble", TROUBLE)
def test_exact_solvers_have_a_solution_in_any_trouble(name: str, trouble: str) -> None:
    rows = TROUBLE[trouble].double()
    balancer = make(name, len(rows))
    weigh(balancer, rows)
    assert balancer.failures == 0


@each
def test_a_gradient_that_is_not_finite_shows(name: str) -> None:
    rows = random_rows(3)
    rows[1, 0] = torch.nan
    assert not update(make(name, 3), rows).isfinite().all()


def test_graddrop_keeps_type_and_zeros() -> None:
    rows = random_rows(3, 5).float()
    rows[:, 2] = 0
    found = GradDrop().combine(rows, torch.ones(3))
    assert found.dtype == torch.float32
    assert found.shape == (5,)
    assert float(found[2]) == 0


def test_graddrop_of_one_task_is_its_gradient() -> None:
    rows = random_rows(1, 50)
    assert GradDrop().combine(rows, torch.ones(1)).tolist() == pytest.approx(rows[0].tolist())
