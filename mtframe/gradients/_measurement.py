"""What the tasks' gradients were like in one step, which trains as any other."""

# Shapes: T tasks.

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

from torch import Tensor, nn

from ._passes import Gradients
from ._stages import cosine, stage_grams

Row = dict[str, str | float]

_NAN = math.nan


class Measurement:
    """The tasks' gradients of what they share, in one step, until the optimiser has made its update of them.

    An observer of the engine's backward pass (`GradientObserver`).

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
        """Once the optimiser has stepped: for each stage a row per task, then a row per pair of tasks.

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
