"""Arithmetic on the gradients of several tasks that are kept parameter by parameter."""

# Shapes: T tasks, P shared parameters.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Elements at a time on a CPU: T times these stay in its last cache, while each pair of tasks is multiplied.
_CHUNK = 1 << 20
# Gradients of fewer elements are multiplied together: each product has a price of its own.
_SMALL = 1 << 14


def gram_matrix(gradients: Sequence[Mapping[str, Tensor | None]]) -> Tensor:
    """(T, T) float64 on the CPU: inner products of the tasks' gradients, each by name of a parameter, None for zero.

    Products are summed in the gradients' precision within a parameter (on a CPU, 1048576 elements of it at most, and
    small parameters together), and these sums in float64.
    """
    count = len(gradients)
    products: dict[tuple[int, int], list[Tensor]] = {(i, j): [] for i in range(count) for j in range(i + 1)}
    for tasks, flat in _pieces(gradients):
        for chunk in _chunks(flat):
            for a, i in enumerate(tasks):
                for b, j in enumerate(tasks[: a + 1]):
                    products[i, j].append(torch.dot(chunk[a], chunk[b]))
    total = torch.zeros(count, count, dtype=torch.float64)
    for (i, j), found in products.items():
        # Read at the end: on an accelerator each read waits for all that came before.
        total[i, j] = total[j, i] = torch.stack(found).cpu().double().sum().item() if found else 0.0
    return total


def _pieces(gradients: Sequence[Mapping[str, Tensor | None]]) -> Iterator[tuple[tuple[int, ...], list[Tensor]]]:
    """Tasks, and of each of them the same elements of its gradient, (n,)."""
    small: dict[Any, list[list[Tensor]]] = {}
    for name in dict.fromkeys(name for of_task in gradients for name in of_task):
        present = {i: g for i, of_task in enumerate(gradients) if (g := of_task.get(name)) is not None}
        if not present:
            continue
        tasks, flat = tuple(present), _flat(list(present.values()))
        if len(flat[0]) < _SMALL:
            small.setdefault((tasks, flat[0].dtype), []).append(flat)
        else:
            yield tasks, flat
    for (tasks, _), parts in small.items():
        yield tasks, [torch.cat(of_task) for of_task in zip(*parts, strict=True)]


def weighted_sum(terms: Sequence[tuple[Tensor | None, float]]) -> Tensor | None:
    """Σ w g of gradients with their weights, in the memory of the first; None if all are zero."""
    present = [(gradient, weight) for gradient, weight in terms if gradient is not None]
    if not present:
        return None
    total = present[0][0].mul_(present[0][1])
    for gradient, weight in present[1:]:
        total.add_(gradient, alpha=weight)
    return total


def combined(
    gradients: Mapping[str, dict[str, Tensor | None]],
    tasks: Sequence[str],
    parameters: Mapping[str, Tensor],
    combine: Callable[[Tensor, Tensor], Tensor],
    losses: Tensor,
    divide: float,
) -> dict[str, Tensor]:
    """What `combine` makes of all gradients in one (T, P) buffer, by parameter. Empties `gradients`.

    They are divided by `divide`, and so is what is made of them; `combine` sees them undivided.
    """
    sizes = [parameter.numel() for parameter in parameters.values()]
    first = next(iter(parameters.values()))
    buffer_TP = first.new_zeros(len(tasks), sum(sizes), requires_grad=False)
    for row_P, task in zip(buffer_TP, tasks, strict=True):
        for part, name in zip(row_P.split(sizes), parameters, strict=True):
            gradient = gradients[task].pop(name)
            if gradient is not None:
                torch.mul(gradient.reshape(-1), divide, out=part)
    total_P = combine(buffer_TP, losses)
    parts = zip(total_P.split(sizes), parameters.items(), strict=True)
    return {name: part.view(parameter.shape) / divide for part, (name, parameter) in parts}


def _chunks(flat: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """The same elements of each, some at a time."""
    size = _CHUNK if flat[0].device.type == "cpu" else max(1, len(flat[0]))
    return zip(*(gradient.split(size) for gradient in flat), strict=True)


def _flat(gradients: Sequence[Tensor]) -> list[Tensor]:
    """One-dimensional views, of elements in one order; copies only where memory layouts differ."""
    if any(gradient.stride() != gradients[0].stride() for gradient in gradients):
        return [gradient.reshape(-1) for gradient in gradients]
    if gradients[0].is_contiguous():
        return [gradient.view(-1) for gradient in gradients]
    order = sorted(range(gradients[0].dim()), key=gradients[0].stride, reverse=True)
    return [gradient.permute(order).reshape(-1) for gradient in gradients]
