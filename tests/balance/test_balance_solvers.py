"""The small problems behind balancers, against brute force and by their optimality conditions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobians import jacobians, random_rows
from torch import Tensor

from mtframe.balance._solvers import (
    conflict_averse,
    min_norm_point,
    nonnegative_qp,
    norm,
    power_balance,
    semidefinite,
)

fast = settings(max_examples=60, deadline=None)


def brute_force_qp(matrix: np.ndarray, linear: np.ndarray) -> float:
    """The least value over all sets of variables that may be above 0."""
    best = 0.0
    for size in range(1, len(linear) + 1):
        for chosen in map(list, combinations(range(len(linear)), size)):
            part = np.linalg.lstsq(matrix[np.ix_(chosen, chosen)], -linear[chosen], rcond=None)[0]
            if (part >= -1e-12).all():
                x = np.zeros(len(linear))
                x[chosen] = part
                best = min(best, float(x @ matrix @ x / 2 + linear @ x))
    return best


def brute_force_min_norm(gram: np.ndarray) -> float:
    """The least w'Gw over the simplex, by all its faces."""
    best = np.inf
    for size in range(1, len(gram) + 1):
        for chosen in map(list, combinations(range(len(gram)), size)):
            # The stationary point on the face's plane: [G 1; 1' 0] [w; m] = [0; 1].
            system = np.block([[gram[np.ix_(chosen, chosen)], np.ones((size, 1))], [np.ones((1, size)), 0.0]])
            w = np.linalg.lstsq(system, np.r_[np.zeros(size), 1.0], rcond=None)[0][:size]
            if (w >= -1e-12).all() and abs(w.sum() - 1) < 1e-9:
                best = min(best, float(w @ gram[np.ix_(chosen, chosen)] @ w))
    return best


@fast
@given(jacobians())
def test_nonnegative_qp_is_as_low_as_brute_force(rows: Tensor) -> None:
    gram = (rows @ rows.T).numpy()
    for linear in gram:
        x, solved = nonnegative_qp(gram, linear)
        assert solved
        assert (x >= 0).all()
        assert x @ gram @ x / 2 + linear @ x == pytest.approx(brute_force_qp(gram, linear), abs=1e-10)


def test_nonnegative_qp_by_hand() -> None:
    # Least (x1² + x2²) / 2 - x1 + x2 over x >= 0: x1 = 1, x2 = 0.
    x, solved = nonnegative_qp(np.eye(2), np.array([-1.0, 1.0]))
    assert solved
    assert x == pytest.approx([1.0, 0.0])


@fast
@given(jacobians())
def test_min_norm_point_is_as_short_as_brute_force(rows: Tensor) -> None:
    gram = (rows @ rows.T).numpy()
    w, solved = min_norm_point(gram)
    assert solved
    assert (w >= 0).all()
    assert w.sum() == pytest.approx(1.0)
    assert w @ gram @ w == pytest.approx(brute_force_min_norm(gram), abs=1e-10)


@fast
@given(jacobians(scales=True))
def test_min_norm_point_meets_its_conditions_at_any_scale(rows: Tensor) -> None:
    # No point of the hull is nearer: g_t'd >= |d|², up to rounding of the products.
    gram = (rows @ rows.T).numpy()
    w, solved = min_norm_point(gram)
    assert solved
    lengths = np.sqrt(np.diag(gram))
    assert (gram @ w - w @ gram @ w >= -1e-8 * lengths * (w * lengths).max()).all()


def test_inner_products_in_float32_are_made_those_of_some_vectors() -> None:
    gram = np.array([[1.0, 1 + 1e-7, 0.0], [1 + 1e-7, 1.0, 0.0], [0.0, 0.0, 0.0]])
    cleaned = semidefinite(gram)
    assert np.linalg.eigvalsh(cleaned).min() >= -1e-15
    assert cleaned == pytest.approx(gram, abs=2e-7)
    # A gradient of 0 is one still, and what is in order stays as it is.
    assert not cleaned[2].any()
    assert (semidefinite(np.eye(2) * 1e-20) == np.eye(2) * 1e-20).all()


@pytest.mark.parametrize("seed", range(30))
def test_dependent_gradients_in_float32_have_solutions(seed: int) -> None:
    rows = random_rows(5, 8, seed).float()
    rows[1], rows[3] = rows[0], -3 * rows[2]
    gram = semidefinite((rows @ rows.T).double().numpy())
    assert min_norm_point(gram)[1]
    assert conflict_averse(gram, 0.4)[1]
    assert all(nonnegative_qp(gram, linear)[1] for linear in gram)


@fast
@given(st.integers(1, 5), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 99))
def test_power_balance_solves_its_equation(tasks: int, power: float, seed: int) -> None:
    rows = random_rows(tasks, 12, seed)
    rows = rows / rows.norm(dim=1, keepdim=True)
    gram, factor = (rows @ rows.T).numpy(), np.exp(np.random.default_rng(seed).normal(size=tasks))
    x, solved = power_balance(gram, factor, power)
    assert solved
    assert gram @ x == pytest.approx(factor * x**-power, rel=1e-8)


def test_power_balance_says_that_opposite_gradients_have_no_solution() -> None:
    x, solved = power_balance(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.ones(2), 1.0)
    assert not solved
    assert (x > 0).all()
    assert x.max() <= 1e5


@fast
@given(jacobians(smallest=2), st.sampled_from([0.1, 0.4, 0.9, 2.0]))
def test_no_direction_within_the_radius_helps_the_worst_task_more(rows: Tensor, radius: float) -> None:
    gram = (rows @ rows.T).numpy()
    weights, solved = conflict_averse(gram, radius)
    assert solved
    mean = np.full(len(gram), 1 / len(gram))
    assert norm(gram, weights - mean) <= radius * norm(gram, mean) * (1 + 1e-6)
    worst, rng = (gram @ weights).min(), np.random.default_rng(0)
    for _ in range(50):
        other = rng.normal(size=len(gram))
        other *= radius * norm(gram, mean) / norm(gram, other)
        assert (gram @ (mean + other)).min() <= worst + 2e-5 * np.abs(gram).max()


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]],
        [[1.0, 0.0], [-1.0, 0.0], [0.1, 1.0]],
        [[1e6, 0.0], [-1e-6, 0.0], [0.1, 1.0]],
    ],
)
@pytest.mark.parametrize("radius", [0.4, 0.9, 1.5])
def test_where_no_direction_helps_all_tasks_it_makes_none_worse_if_it_can(
    rows: list[list[float]], radius: float
) -> None:
    gram = np.array(rows) @ np.array(rows).T
    weights, solved = conflict_averse(gram, radius)
    direction, mean = weights @ np.array(rows), np.array(rows).mean(0)
    assert solved
    # The nearest point of the half-line (0, y > 0), along which the first two do not change, unless it is too far.
    if abs(mean[0]) <= radius * np.linalg.norm(mean):
        assert (np.array(rows) @ direction).min() >= -2e-5 * np.linalg.norm(mean) * np.abs(rows).max()
    assert np.linalg.norm(direction - mean) <= radius * np.linalg.norm(mean) * (1 + 1e-6)


def test_solvers_stay_quick_and_right_with_many_tasks() -> None:
    gram = (random_rows(40, 20) @ random_rows(40, 20).T).numpy()
    w, solved = min_norm_point(gram)
    assert solved
    assert (gram @ w).min() >= w @ gram @ w - 1e-8
    _, solved = nonnegative_qp(gram, gram[0])
    assert solved


def test_a_solution_that_is_none_is_said_to_be_none() -> None:
    # Unbounded: q is not in the range of M.
    _, solved = nonnegative_qp(np.zeros((2, 2)), np.array([-1.0, 0.0]))
    assert not solved
