"""Against TorchJD, where it has the same method; and its aggregators by name."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jacobians import random_rows, update
from torch import Tensor

from mtframe.balance import (
    DWA,
    FAMO,
    MGDA,
    STCH,
    AlignedMTL,
    CAGrad,
    FairGrad,
    GeometricMean,
    GradDrop,
    GradVac,
    ImtlG,
    ImtlL,
    NashMTL,
    PCGrad,
    TorchJD,
    Uncertainty,
    UPGrad,
)
from mtframe.errors import RecipeError, TrainingError

aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
scalarization = pytest.importorskip("torchjd.scalarization", reason="TorchJD is not installed")

TASKS = ("a", "b", "c")

# What cvxpy says of TorchJD's NashMTL: it is slow.
not_dpp = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")

# float64 rows of like length, none near to depending on the others.
ROWS = [random_rows(3, 12, seed) for seed in range(20)]


def needs(*packages: str) -> None:
    """Skips where what TorchJD needs of others for an aggregator is missing."""
    for package in packages:
        pytest.importorskip(package, reason=f"TorchJD's aggregator needs {package}, which is not installed")


def agree(ours: Callable[[], Any], theirs: Callable[[], Any], *, rel: float = 1e-5) -> None:
    for seed, rows in enumerate(ROWS):
        torch.manual_seed(seed)
        found = update(ours(), rows)
        torch.manual_seed(seed)
        expected = theirs()(rows)
        assert (found - expected).norm() <= rel * expected.norm(), seed


def test_pcgrad_agrees() -> None:
    agree(PCGrad, aggregation.PCGrad, rel=1e-12)


def test_gradvac_agrees_over_steps() -> None:
    # Their order of others is drawn differently: of two tasks there is only one.
    ours, theirs = GradVac(("a", "b"), beta=0.3), aggregation.GradVac(beta=0.3)
    for rows in ROWS:
        found, expected = update(ours, rows[:2]), theirs(rows[:2])
        assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_mgda_agrees() -> None:
    agree(MGDA, lambda: aggregation.MGDA(epsilon=1e-9, max_iters=20_000), rel=1e-4)


def test_mgda_is_shorter_than_frank_wolfe_s() -> None:
    for rows in ROWS:
        assert update(MGDA(), rows).norm() <= aggregation.MGDA()(rows).norm() + 1e-12


@pytest.mark.parametrize("c", [0.2, 0.4, 0.9])
def test_cagrad_agrees(c: float) -> None:
    # As near as their solver comes, whose direction is never better for the worst task.
    needs("cvxpy", "clarabel")
    agree(lambda: CAGrad(c=c), lambda: aggregation.CAGrad(c=c, norm_eps=0.0), rel=1e-4)
    for rows in ROWS:
        theirs = (rows @ aggregation.CAGrad(c=c, norm_eps=0.0)(rows)).min()
        assert (rows @ update(CAGrad(c=c), rows)).min() >= theirs - 1e-9


def test_imtl_g_agrees() -> None:
    for rows in ROWS:
        expected = aggregation.IMTLG()(rows)
        # Where the sum of weights is negative theirs goes the other way.
        expected = expected * (rows[0] @ expected).sign()
        assert (update(ImtlG(), rows) - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl_agrees(scale: Any) -> None:
    agree(lambda: AlignedMTL(scale=scale), lambda: aggregation.AlignedMTL(scale_mode=scale), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad_agrees(alpha: float) -> None:
    needs("scipy")
    agree(lambda: FairGrad(alpha=alpha), lambda: aggregation.FairGrad(alpha=alpha))


@not_dpp
def test_nash_mtl_agrees() -> None:
    # Theirs stops at an error of 1e-3 in the equation.
    needs("cvxpy", "ecos")
    agree(NashMTL, lambda: aggregation.NashMTL(n_tasks=3, optim_niter=100), rel=2e-3)


def test_upgrad_agrees() -> None:
    needs("quadprog", "qpsolvers")
    from torchjd.linalg import QuadprogProjector

    agree(UPGrad, lambda: aggregation.UPGrad(projector=QuadprogProjector(norm_eps=0.0, reg_eps=1e-12)))


def test_graddrop_agrees() -> None:
    for seed, rows in enumerate(ROWS):
        torch.manual_seed(seed)
        found = GradDrop().combine(rows, torch.ones(3))
        torch.manual_seed(seed)
        assert found.tolist() == pytest.approx(aggregation.GradDrop()(rows).tolist())


def drawn(step: int) -> Tensor:
    torch.manual_seed(step)
    return torch.rand(3) + 0.1


def pulls(ours: Any, theirs: Any, step: int) -> tuple[list[float], list[float]]:
    """The gradients by the losses, of ours and of theirs."""
    values = drawn(step).requires_grad_()
    losses = dict(zip(TASKS, values.unbind(), strict=True))
    (found,) = torch.autograd.grad(ours(losses), values)
    (expected,) = torch.autograd.grad(theirs(values), values)
    return found.tolist(), expected.tolist()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: Uncertainty(TASKS), lambda: scalarization.UW(3)),
        (lambda: ImtlL(TASKS), lambda: scalarization.IMTLL(3)),
        (GeometricMean, lambda: scalarization.GeometricMean()),
    ],
    ids=["uncertainty", "imtl-l", "geometric-mean"],
)
def test_balancers_of_losses_agree(ours: Any, theirs: Any) -> None:
    for step in range(10):
        first, second = ours(), theirs()
        for balancer in (first, second):
            for parameter in getattr(balancer, "parameters", list)():
                torch.nn.init.constant_(parameter, 0.1 * step)
        found, expected = pulls(first, second, step)
        assert found == pytest.approx(expected, rel=1e-5)


def test_stch_agrees() -> None:
    ours, theirs = STCH(TASKS, mu=0.3, normalise=False), scalarization.STCH(mu=0.3, weights=torch.ones(3))
    for step in range(10):
        found, expected = pulls(ours, theirs, step)
        assert found == pytest.approx([3 * one for one in expected], rel=1e-5)


def test_dwa_agrees() -> None:
    ours, theirs = DWA(TASKS, period=4), scalarization.DWA()
    for step in range(20):
        found, expected = pulls(ours, theirs, step)
        assert found == pytest.approx(expected, rel=1e-5)
        if step % 4 == 3:
            theirs.step()


def test_famo_agrees_where_the_losses_after_a_step_are_those_of_the_next() -> None:
    ours, theirs = FAMO(TASKS), scalarization.FAMO(3)
    for step in range(30):
        if step:
            theirs.update(drawn(step))
        found, expected = pulls(ours, theirs, step)
        assert found == pytest.approx(expected, rel=1e-4)


# What those need that have no defaults.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.5},
    "Constant": {"weights": [1.0, 2.0, 3.0]},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0},
    "TrimmedMean": {"trim_number": 1},
}


@not_dpp
@pytest.mark.parametrize("member", TorchJD.members("*"))
def test_every_aggregator_is_there_by_name(member: str) -> None:
    try:
        balancer = TorchJD(member, TASKS, arguments=ARGUMENTS.get(member))
    except RecipeError as error:
        if "to be installed" in str(error):
            pytest.skip(str(error))
        raise
    assert hasattr(balancer, "weigh") != hasattr(balancer, "combine")
    rows = ROWS[0]
    torch.manual_seed(0)
    found = update(balancer, rows) if hasattr(balancer, "weigh") else balancer.combine(rows, torch.ones(3))
    arguments = {
        name: torch.tensor(v).double() if isinstance(v, list) else v for name, v in ARGUMENTS.get(member, {}).items()
    }
    arguments |= {"n_tasks": 3} if member == "NashMTL" else {}
    torch.manual_seed(0)
    expected = getattr(aggregation, member)(**arguments)(rows)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("member", ["Constant", "GradDrop"])
def test_arguments_take_the_type_of_the_gradients(member: str) -> None:
    arguments = {"Constant": {"weights": [1.0, 0.0, 0.0]}, "GradDrop": {"leak": [1.0, 1.0, 1.0]}}[member]
    rows = ROWS[0].float()
    found = TorchJD(member, TASKS, arguments=arguments).combine(rows, torch.ones(3))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx((rows[0] if member == "Constant" else rows.sum(0)).tolist(), rel=1e-5)


def test_a_preference_is_a_list() -> None:
    preferred = TorchJD("AlignedMTL", TASKS, arguments={"pref_vector": [1.0, 0.0, 0.0]})
    left, values, right = torch.linalg.svd(ROWS[0], full_matrices=False)
    assert update(preferred, ROWS[0]).tolist() == pytest.approx((values[-1] * left @ right)[0].tolist())


def test_members_are_aggregators_only() -> None:
    members = TorchJD.members("*")
    assert {"UPGrad", "MGDA", "ConFIG", "GradDrop"} <= set(members)
    assert not {"Aggregator", "GramianWeightedAggregator", "UPGradWeighting"} & set(members)
    assert TorchJD.members("UP*") == ["UPGrad"]
    assert TorchJD.members("*", pretrained=True) == []
    assert TorchJD.example in members


@pytest.mark.parametrize("member", ["GradVac", "ExcessMTL"])
def test_aggregators_that_remember_resume_exactly(member: str) -> None:
    def step(balancer: Any, rows: Tensor) -> list[float]:
        torch.manual_seed(0)
        if hasattr(balancer, "weigh"):
            return update(balancer, rows).tolist()
        return balancer.combine(rows, torch.ones(3)).tolist()

    going = TorchJD(member, TASKS)
    first = step(going, ROWS[0])
    for rows in ROWS[1:4]:
        step(going, rows)
    file = io.BytesIO()
    torch.save(going.state_dict(), file)
    file.seek(0)
    resumed = TorchJD(member, TASKS)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    again = step(going, ROWS[0])
    assert step(resumed, ROWS[0]) == again
    # It does remember something.
    assert again != first


@pytest.mark.parametrize(
    ("member", "arguments", "message"),
    [
        ("UpGrad", {}, "no aggregator 'UpGrad' in TorchJD; did you mean 'UPGrad'?"),
        ("pcgrad", {}, "no aggregator 'pcgrad' in TorchJD; did you mean 'PCGrad'?"),
        ("sgd", {}, f"no aggregator 'sgd' in TorchJD; it has: {', '.join(TorchJD.members('*'))}"),
        ("Krum", {}, "arguments: Krum needs n_byzantine, as in {n_byzantine: ...}"),
        ("MGDA", {"epsilo": 1}, "arguments: MGDA has no 'epsilo'; did you mean 'epsilon'?; it has: epsilon, max_iters"),
        (
            "MGDA",
            {"epsilon": -1.0},
            "arguments: TorchJD's MGDA does not take {'epsilon': -1.0} for 3 tasks (a, b, c): ValueError: epsilon "
            "must be positive, but got -1.0. Change them, or take another balancer",
        ),
        (
            "CAGrad",
            {"c": "hello"},
            "arguments: TorchJD's CAGrad does not take {'c': 'hello'} for 3 tasks (a, b, c): TypeError: '<' not "
            "supported between instances of 'str' and 'int'. Change them, or take another balancer",
        ),
        (
            "UPGrad",
            {"pref_vector": "x"},
            "arguments: TorchJD's UPGrad does not take {'pref_vector': 'x'} for 3 tasks (a, b, c): AttributeError: "
            "'str' object has no attribute 'ndim'. Change them, or take another balancer",
        ),
        (
            "UPGrad",
            {"pref_vector": [1.0, 2.0]},
            "arguments.pref_vector: expected a number for each of the 3 tasks (a, b, c), got 2",
        ),
        ("GradDrop", {"leak": []}, "arguments.leak: expected a number for each of the 3 tasks (a, b, c), got 0"),
        ("PCD", {"tau": [0.1] * 3}, "arguments.tau: expected a number for each of the 2 tasks (b, c), got 3"),
        (
            "Constant",
            {"weights": [1, 2, "x"]},
            "arguments.weights: expected a finite number for each of the tasks, got 'x'",
        ),
        (
            "Constant",
            {"weights": [1, 2, torch.nan]},
            "arguments.weights: expected a finite number for each of the tasks, got nan",
        ),
        (
            "Constant",
            {"weights": [[1.0]] * 3},
            "arguments.weights: expected a finite number for each of the tasks, got [1.0]",
        ),
    ],
)
def test_mistakes_are_named(member: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        TorchJD(member, TASKS, arguments=arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("member", "tasks", "arguments", "message"),
    [
        (
            "Krum",
            ("a", "b"),
            {"n_byzantine": 0},
            "{'n_byzantine': 0} for 2 tasks (a, b): ValueError: Parameter `gramian` should have at least 3 rows "
            "(n_byzantine + 3). Found `gramian` with 2 rows.",
        ),
        ("FairGrad", TASKS, {"alpha": "x"}, "{'alpha': 'x'} for 3 tasks (a, b, c): TypeError: "),
    ],
)
def test_what_fails_with_any_gradients_fails_before_training(
    member: str, tasks: tuple[str, ...], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        TorchJD(member, tasks, arguments=arguments)
    assert str(caught.value).startswith(f"arguments: TorchJD's {member} does not take {message}")
    assert str(caught.value).endswith(". Change them, or take another balancer")
    assert ".." not in str(caught.value)
    # One task alone is never balanced.
    TorchJD(member, tasks[:1], arguments=arguments)


@pytest.mark.parametrize("member", ["PCGrad", "GradDrop", "GradVac", "ExcessMTL", "PCD"])
def test_that_it_was_tried_leaves_no_trace(member: str) -> None:
    before = torch.get_rng_state()
    tried = TorchJD(member, TASKS)
    assert torch.equal(torch.get_rng_state(), before)
    # What weighs one task alone is not tried.
    assert tried.state_dict() == TorchJD(member, TASKS[:1]).state_dict()


def test_pcd_has_a_number_for_each_task_but_the_first() -> None:
    assert update(TorchJD("PCD", TASKS, arguments={"tau": [0.1, 0.2]}), ROWS[0]).isfinite().all()


@pytest.mark.parametrize(
    ("member", "arguments", "message"),
    [
        ("Krum", {"n_byzantine": 0}, "the gradients of 2 tasks (a, b): ValueError: Parameter `gramian` should have"),
        ("TrimmedMean", {"trim_number": 1}, "the gradients of 2 tasks (a, b): ValueError: Parameter `matrix` should"),
    ],
)
def test_what_the_library_raises_in_training_names_the_aggregator(
    member: str, arguments: dict[str, Any], message: str
) -> None:
    balancer = TorchJD(member, TASKS, arguments=arguments)
    # The third task takes no part in this step.
    balancer.present = TASKS[:2]
    ask = balancer.weigh if hasattr(balancer, "weigh") else balancer.combine
    given = ROWS[0][:2] @ ROWS[0][:2].T
    with pytest.raises(TrainingError) as caught:
        ask(given, torch.ones(2))
    assert str(caught.value).startswith(f"balancer torchjd/{member}: it fails with {message}")
    assert str(caught.value).endswith(". Change its arguments, or take another balancer")
    assert ".." not in str(caught.value)
    # Of a gradient that is not finite the trainer has more to say.
    assert ask(given * torch.nan, torch.ones(2)).isnan().all()


def test_without_torchjd_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(RecipeError, match=r"it needs TorchJD .* pip install 'mtframe\[torchjd\]'$"):
        TorchJD("UPGrad", TASKS)
