"""What balancers of losses do alike."""

# Shapes: T tasks.

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mtframe.errors import RecipeError


def add(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one scalar."""
    # A running sum, not torch.stack(...).sum(): a stack would tie every task's graph to every other's.
    first, *others = terms
    for term in others:
        first = first + term
    return first


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """The sum of the losses, each times its task's weight."""
    return add(loss * weights[name] for name, loss in losses.items())


def logarithm(loss: Tensor, eps: float) -> Tensor:
    """The logarithm of loss + eps; where there is none it and its gradient are NaN."""
    above = loss.float() + eps
    # The logarithm of a negative number is NaN, but its gradient 1 / L is finite: training would go on, the wrong way.
    return torch.log(above * torch.where(above > 0, 1.0, torch.nan))


def detached(losses: Mapping[str, Tensor], tasks: Sequence[str]) -> Tensor:
    """(T,) float32 losses in the order of `tasks`, on the losses' device; NaN for a task that has none in this step."""
    absent = next(iter(losses.values())).new_full((), math.nan)
    return torch.stack([losses.get(name, absent).detach().float() for name in tasks])


def by_task(
    tasks: Sequence[str], given: Mapping[str, float] | None, option: str, *, default: float, floor: float = -math.inf
) -> dict[str, float]:
    """An option that has a number per task, for all tasks.

    Raises:
        RecipeError: A number for an unknown task, below `floor` or not finite.
    """
    for name, value in (given or {}).items():
        if name not in tasks:
            raise RecipeError(f"balancer.{option}.{name}: no such task; the tasks are {', '.join(tasks)}")
        if not (math.isfinite(value) and value >= floor):
            least = f" >= {floor:g}" if math.isfinite(floor) else ""
            raise RecipeError(f"balancer.{option}.{name}: expected a finite {option[:-1]}{least}, got {value}")
    return {name: (given or {}).get(name, default) for name in tasks}
