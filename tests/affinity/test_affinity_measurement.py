"""A measured step: the tasks' gradients are autograd's, and the step trains as it would have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtframe.balance import GradDrop, GradNorm, LogSum, PCGrad, Random, Sum, Uncertainty
from mtframe.gradients import GradientEngine, Measurement, names_by_stage
from test_gradients import TASKS, Staged, Step, Weigh, assert_same

NORMS: dict[str, Any] = {"group": lambda width: nn.GroupNorm(2, width), "batch": nn.BatchNorm2d}
BALANCERS: dict[str, Any] = {
    "sum": lambda tasks: Sum(tasks, weights={"objects": 3.0}),
    "log-sum": lambda tasks: LogSum(),
    "uncertainty": Uncertainty,
    "random": Random,
    "graddrop": lambda tasks: GradDrop(),
    "pcgrad": lambda tasks: PCGrad(),
    "gradnorm": GradNorm,
}

norms = pytest.mark.parametrize("norm", NORMS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def measured(step: Step, balancer: Any, **options: Any) -> Measurement:
    engine = GradientEngine(step.model)
    found = Measurement(engine.shared_parameters(), names_by_stage(step.model.sharing, engine.shared_parameters()))
    engine.backward(step.images, step.lenders, step.losses, balancer, observer=found, **options)
    return found


def unmeasured(step: Step, balancer: Any, at: Any = "parameters") -> None:
    GradientEngine(step.model).backward(step.images, step.lenders, step.losses, balancer, at=at)


def found_gradients(measurement: Measurement) -> dict[str, dict[str, Tensor]]:
    shapes = measurement.parameters
    return {
        task: {name: torch.zeros_like(shapes[name]) if g is None else g for name, g in of_task.items()}
        for task, of_task in measurement.gradients.items()
    }


@norms
@pytest.mark.parametrize("balancer", BALANCERS)
def test_gradients_are_those_of_each_tasks_own_loss_whatever_the_balancer(norm: str, balancer: str) -> None:
    step = Step(Staged(NORMS[norm]))
    expected = step.expected()
    assert_same(found_gradients(measured(step, BALANCERS[balancer](TASKS))), expected, 1e-9)


@norms
@pytest.mark.parametrize("balancer", BALANCERS)
def test_a_measured_step_leaves_gradients_statistics_and_draws_as_they_would_be(norm: str, balancer: str) -> None:
    step = Step(Staged(NORMS[norm]))
    other = deepcopy(step)
    mine, theirs = BALANCERS[balancer](TASKS), BALANCERS[balancer](TASKS)
    measured(step, mine)
    draws = torch.get_rng_state()
    unmeasured(other, theirs)
    assert torch.equal(draws, torch.get_rng_state())
    for (name, p), q in zip(step.model.named_parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-13, msg=name)
    for a, b in zip(step.model.buffers(), other.model.buffers(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(own_parameters(mine), own_parameters(theirs), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def own_parameters(balancer: Any) -> list[nn.Parameter]:
    return list(balancer.parameters()) if isinstance(balancer, nn.Module) else []


@norms
def test_tasks_on_the_same_images_have_gradients_of_their_own(norm: str) -> None:
    step = Step(Staged(NORMS[norm]), lenders={"attributes": "faces", "age": "objects"})
    assert_same(found_gradients(measured(step, Sum(step.model.tasks))), step.expected(), 1e-9)


def test_balancing_at_the_maps_is_measured_as_it_is() -> None:
    step = Step(Staged(), counts={"faces": 3}, lenders={"attributes": "faces"})
    other = deepcopy(step)
    found = measured(step, Weigh(0.5, 3.0), at="maps")
    unmeasured(other, Weigh(0.5, 3.0), "maps")
    for p, q in zip(step.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    step.model.zero_grad()
    assert_same(found_gradients(found), step.expected(), 1e-9)
    assert found.weights == {"faces": [0.5], "attributes": [3.0]}


def test_batchnorm_that_keeps_its_statistics_needs_no_pass_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtframe.gradients._engine.PassByTask", None)
    step = Step(Staged(nn.BatchNorm2d), batchnorm="frozen")
    assert_same(found_gradients(measured(step, Sum(TASKS))), step.expected(), 1e-9)


@norms
@pytest.mark.parametrize("balancer", [Sum(TASKS), PCGrad()], ids=["sum", "pcgrad"])
def test_a_compiled_backbone_is_measured_alike_and_has_its_stages(norm: str, balancer: Any) -> None:
    step = Step(Staged(NORMS[norm]))
    step.model.sharing.backbone = torch.compile(step.model.sharing.backbone, backend="aot_eager")
    expected = step.expected()
    found = measured(step, balancer)
    assert_same(found_gradients(found), expected, 1e-9)
    assert list(found.stages) == ["1", "2"]


def test_what_a_sharing_scheme_adds_is_the_rest_and_copies_of_a_stage_are_one() -> None:
    scheme = nn.Module()
    scheme.copies = nn.ModuleList([Staged(), Staged()])
    scheme.units = nn.Linear(2, 2)
    found = names_by_stage(scheme, [name for name, _ in scheme.named_parameters() if name.endswith("weight")])
    assert found == {
        "1": [f"copies.{i}.stem.{j}.weight" for i in range(2) for j in range(2)],
        "2": [f"copies.{i}.body.{j}.weight" for i in range(2) for j in range(2)],
        "rest": ["units.weight"],
    }


@norms
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_rows_are_cosines_lengths_and_effective_learning_rates_by_stage(norm: str, optimizer: Any) -> None:
    step = Step(Staged(NORMS[norm]))
    expected = step.expected()
    before = {name: p.detach().clone() for name, p in step.shared.items()}
    found = measured(step, Sum(TASKS, weights={"faces": 2.0}))
    found.before_update()
    optimizer(step.model.parameters(), lr=0.01).step()
    update = {name: p.detach() - before[name] for name, p in step.shared.items()}
    rows = found.rows()
    assert [row["stage"] for row in rows] == [stage for stage in ("all", "1", "2") for _ in range(6)]
    for stage, prefix in (("all", "backbone"), ("1", "backbone.stem"), ("2", "backbone.body")):

        def flat(values: dict[str, Tensor], prefix: str = prefix) -> Tensor:
            return torch.cat([value.flatten() for name, value in values.items() if name.startswith(prefix)])

        of_stage = [row for row in rows if row["stage"] == stage]
        for row, task in zip(of_stage[:3], TASKS, strict=True):
            g = flat(expected[task])
            rate = -(flat(update) @ g) / (g @ g)
            values = (2.0 if task == "faces" else 1.0, g.norm().item(), rate.item())
            assert (row["weight"], row["norm"], row["effective_lr"]) == pytest.approx(values)
            assert row["task"] == task
        for row, (a, b) in zip(of_stage[3:], combinations(TASKS, 2), strict=True):
            c = torch.cosine_similarity(flat(expected[a]), flat(expected[b]), dim=0)
            assert row == {"stage": stage, "task": a, "other": b, "cosine": pytest.approx(c.item())}


def test_the_effective_learning_rate_of_orthogonal_tasks_is_their_weight_times_the_learning_rate() -> None:
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    found = Measurement({"p": parameter}, {"1": ["p"]})
    gradients = torch.tensor([[4.0, 0, 0], [0, 0.5, 0], [-4.0, 0, 0]], dtype=torch.float64)
    found.add({f"t{i}": {"p": g.clone()} for i, g in enumerate(gradients)}, {"t0": 2.0, "t1": 0.25, "t2": 1.0})
    found.before_update()
    with torch.no_grad():
        parameter -= 0.1 * (2 * gradients[0] + 0.25 * gradients[1] + gradients[2])
    rates = [row["effective_lr"] for row in found.rows()[:3]]
    # The third opposes the first, which weighs twice as much: its loss rises.
    assert rates == pytest.approx([0.1, 0.025, -0.1])


def test_accumulated_batches_are_measured_as_their_mean() -> None:
    step, balancer = Step(Staged()), Sum(TASKS)
    engine = GradientEngine(step.model)
    found = Measurement(engine.shared_parameters(), names_by_stage(step.model.sharing, engine.shared_parameters()))
    first = dict(step.images)
    mean: dict[str, dict[str, Tensor]] = {task: {} for task in TASKS}
    for images in (first, {task: pixels.flip(0) / 2 for task, pixels in first.items()}):
        step.images = images
        for task, of_task in step.expected().items():
            for name, gradient in of_task.items():
                mean[task][name] = mean[task].get(name, 0) + gradient / 2
        engine.backward(step.images, {}, step.losses, balancer, divide=2, observer=found)
    assert_same(found_gradients(found), mean, 1e-9)
    assert found.weights == {task: [1.0, 1.0] for task in TASKS}


def test_a_task_that_weighs_nothing_is_measured_as_nothing_known() -> None:
    step = Step(Staged())
    found = measured(step, Sum(TASKS, weights={"faces": 0.0}))
    found.before_update()
    rows = {(row["task"], row.get("other")): row for row in found.rows() if row["stage"] == "all"}
    assert rows["faces", None]["norm"] == 0
    assert math.isnan(rows["faces", "objects"]["cosine"])
    assert abs(rows["objects", "scenes"]["cosine"]) <= 1
