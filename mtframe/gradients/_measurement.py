"""One step whose gradients are looked at, task by task, while it trains as any other."""

# Shapes: T tasks.

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from ._engine import (
    GradientEngine,
    Gradients,
    accumulate,
    backward_of_sum,
    balance,
    map_weights,
    mixes_rows,
    passes_by_task,
)
from ._row_parameters import StandIn
from ._stages import cosine, stage_grams

Row = dict[str, str | float]

_NAN = math.nan


class Measurement:
    """The tasks' gradients of what they share, in one step, until the optimiser has made its update of them.

    Where a step accumulates several batches, a task's gradient is the mean over them. Memory: one buffer of T × shared
    parameters, and one more copy of these.

    Args:
        parameters: The shared parameters, by name.
        stages: Their names by stage.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], stages: Mapping[str, list[str]]) -> None:
        self.parameters = parameters
        self.stages = stages
        self.gradients: dict[str, Gradients] = {}
        self.weights: dict[str, list[float]] = {}
        self._before: dict[str, Tensor] = {}

    def add(self, gradients: Mapping[str, Gradients], weights: Mapping[str, float]) -> None:
        """Adds the tasks' own gradients of one batch of each, divided as the step's are; these now belong to this.

        Args:
            gradients: By task.
            weights: What the balancer gave to each task; none of one that gives no weights.
        """
        for task, found in gradients.items():
            self.weights.setdefault(task, []).append(weights.get(task, _NAN))
            kept = self.gradients.setdefault(task, {})
            for name, gradient in found.items():
                before = kept.get(name)
                kept[name] = gradient if before is None else before if gradient is None else before.add_(gradient)

    def before_update(self) -> None:
        """Remembers the parameters that the optimiser is about to change."""
        if self.gradients:
            self._before = {name: value.detach().clone() for name, value in self.parameters.items()}

    def rows(self) -> list[Row]:
        """Once the optimiser has stepped: for each stage a row a task, then a row a pair of tasks.

        `norm` is |g_t|; `weight` the balancer's, a mean where the step has several batches; `effective_lr` is
        -⟨Δθ, g_t⟩ / |g_t|², Δθ the change that the optimiser made: to first order the loss of task t has fallen by as
        much as plain gradient descent on that task alone would make it fall with this learning rate. `cosine` is that
        of the gradients of `task` and `other`.
        """
        tasks = list(self.gradients)
        if len(tasks) < 2:
            return []
        update = {name: self.parameters[name].detach() - before for name, before in self._before.items()}
        grams = stage_grams([*self.gradients.values(), update], self.stages)
        rows: list[Row] = []
        for stage, gram in grams.items():
            for i, task in enumerate(tasks):
                square = gram[i, i].item()
                rate = -gram[i, -1].item() / square if square > 0 else _NAN
                weight = sum(self.weights[task]) / len(self.weights[task])
                rows.append({"stage": stage, "task": task, "norm": math.sqrt(square), "weight": weight,
                             "effective_lr": rate})  # fmt: skip
            rows += [
                {"stage": stage, "task": tasks[a], "other": tasks[b], "cosine": cosine(gram, a, b)}
                for a, b in combinations(range(len(tasks)), 2)
            ]
        return rows


def measured_backward(
    engine: GradientEngine,
    images: Mapping[str, Tensor],
    lenders: Mapping[str, str],
    losses: Callable[[], dict[str, Tensor]],
    balancer: Any,
    measurement: Measurement,
    *,
    at: str = "parameters",
    divide: int = 1,
) -> None:
    """The backward pass of a step, with any balancer, and the tasks' gradients on the way.

    Adds to every parameter's `.grad` what the step would have added without it, up to the order of summation.
    Arguments as of `GradientEngine.backward`.
    """
    by_gradients = hasattr(balancer, "weigh") or hasattr(balancer, "combine")
    weigh = (_weigh_maps if at == "maps" else _weigh_gradients) if by_gradients else _weigh_losses
    gradients, weights = weigh(engine, images, lenders, losses, balancer, divide)
    measurement.add(gradients, weights)


def task_gradients(
    engine: GradientEngine,
    images: Mapping[str, Tensor],
    lenders: Mapping[str, str],
    forward: Callable[[], Mapping[str, Tensor]],
    divide: int = 1,
) -> tuple[dict[str, Tensor], dict[str, Gradients]]:
    """Losses and, by task and name, ∂L_t/∂θ of the shared parameters: by rows where these are apart.

    Where BatchNorm normalises the rows of several tasks together it takes a backward pass a task. What only moves a
    common mean changes no loss, and is not in the sum of gradients that are taken by rows, but is in each of them: in
    those of two tasks with opposite signs, which would seem to conflict.
    """
    with engine._uncompiled():
        parameters = engine.shared_parameters()
        if not mixes_rows(engine.model.sharing):
            return engine._gradients(parameters, images, lenders, forward, divide)
        with engine._cut_at_maps() as cut:
            found = backward_of_sum(forward(), divide)
            return found, passes_by_task(cut, parameters)


def _weigh_losses(
    engine: GradientEngine,
    images: Any,
    lenders: Any,
    losses: Callable[[], dict[str, Tensor]],
    balancer: Any,
    divide: int,
) -> tuple[dict[str, Gradients], dict[str, float]]:
    terms: dict[str, Tensor] = {}

    def total() -> dict[str, Tensor]:
        terms.update(losses())
        for loss in terms.values():
            if loss.requires_grad:
                loss.retain_grad()
        return {"balanced": balancer(terms)}

    # Of the balanced loss: w_t g_t for each task, as only its own loss depends on its maps.
    _, gradients = task_gradients(engine, images, lenders, total, divide)
    weights = {task: 0.0 if loss.grad is None else loss.grad.item() * divide for task, loss in terms.items()}
    return _taken_apart(engine, gradients, weights), weights


def _weigh_maps(
    engine: GradientEngine,
    images: Any,
    lenders: Any,
    losses: Callable[[], dict[str, Tensor]],
    balancer: Any,
    divide: int,
) -> tuple[dict[str, Gradients], dict[str, float]]:
    with engine._heads_apart(balancer) as weigh_heads, engine._uncompiled():
        with engine._cut_at_maps() as cut:
            found = backward_of_sum(losses(), divide)
        weights = map_weights(cut, found, lenders, balancer, divide)
        weigh_heads(weights)
        for task, leaves in cut.leaves.items():
            for leaf in leaves:
                leaf.grad = None if leaf.grad is None else leaf.grad * weights[task]
        return _taken_apart(engine, passes_by_task(cut, engine.shared_parameters()), weights), weights


def _taken_apart(
    engine: GradientEngine, gradients: dict[str, Gradients], weights: Mapping[str, float]
) -> dict[str, Gradients]:
    """Adds the sum of weighed gradients to the parameters'; gives them unweighed, of a task that weighs 0 as 0."""
    for name, parameter in engine.shared_parameters().items():
        accumulate(parameter, _sum([of_task[name] for of_task in gradients.values()]))
    for task, of_task in gradients.items():
        for gradient in of_task.values() if weights[task] not in (0, 1) else ():
            if gradient is not None:
                gradient.div_(weights[task])
    return gradients


def _weigh_gradients(
    engine: GradientEngine,
    images: Any,
    lenders: Any,
    losses: Callable[[], dict[str, Tensor]],
    balancer: Any,
    divide: int,
) -> tuple[dict[str, Gradients], dict[str, float]]:
    own: dict[str, Gradients] = {}

    def look(cut: Any, stands: Mapping[str, StandIn]) -> None:
        for task in cut.leaves:
            own[task] = _own(cut, task, stands)

    with engine._heads_apart(balancer) as weigh_heads, engine._uncompiled():
        parameters = engine.shared_parameters()
        mixed = mixes_rows(engine.model.sharing)
        found, gradients = engine._gradients(parameters, images, lenders, losses, divide, look if mixed else None)
        spare = gradients if own else _spared(gradients, found)
        weights = balance(parameters, found, spare, balancer, divide)
        weigh_heads(weights)
    return own or gradients, weights


def _own(cut: Any, task: str, stands: Mapping[str, StandIn]) -> Gradients:
    """∂L_t/∂θ, from a backward pass of one task's maps alone, whatever rows it goes through."""
    pairs = cut.pairs([task])
    leaves = [leaf for stand in stands.values() for leaf in stand.leaves]
    if not pairs:
        return dict.fromkeys(stands)
    found = iter(torch.autograd.grad(
        [output for output, _ in pairs], leaves, [gradient for _, gradient in pairs],
        retain_graph=True, allow_unused=True,
    ))  # fmt: skip
    return {name: _sum([next(found) for _ in stand.leaves]) for name, stand in stands.items()}


def _sum(gradients: list[Tensor | None]) -> Tensor | None:
    """In memory of its own; None if all are zero."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return None
    total = present[0].clone()
    for gradient in present[1:]:
        total.add_(gradient)
    return total


def _spared(gradients: Mapping[str, Gradients], tasks: Iterable[str]) -> dict[str, Gradients]:
    """The same for a balancer, whose sum is made in the memory of the first gradient of each parameter."""
    spared = {task: dict(gradients[task]) for task in tasks}
    for name in next(iter(spared.values())):
        for of_task in spared.values():
            if (gradient := of_task[name]) is not None:
                of_task[name] = gradient.clone()
                break
    return spared
