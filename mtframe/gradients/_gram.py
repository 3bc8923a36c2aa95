"""Arithmetic on the gradients of several tasks that are kept parameter by parameter."""

# Shapes: T tasks, P shared parameters.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

# Elements at a time on a CPU: T times these stay in its cache, while each pair of tasks is multiplied.
_CHUNK = 1 << 18


def gram_matrix(gradients: Sequence[Mapping[str, Tensor | None]]) -> Tensor:
    """(T, T) float64 on the CPU: inner products of the tasks' gradients, each by name of a parameter, None for zero.

    Products are summed in the gradients' precision within a parameter (on a CPU, 262144 elements of it at most), and
    these sums in float64.
    """
    count = len(gradients)
    pairs = [(i, j) for i in range(count) for j in range(i + 1)]
    products: dict[tuple[int, int], list[Tensor]] = {pair: [] for pair in pairs}
    for name in dict.fromkeys(name for of_task in gradients for name in of_task):
        present = {i: gradient for i in range(count) if (gradient := gradients[i].get(name)) is not None}
        for chunk in _chunks(list(present.values())):
            part = dict(zip(present, chunk, strict=True))
            for i, j in pairs:
                if i in part and j in part:
                    products[i, j].append(torch.dot(part[i], part[j]))
    total = torch.zeros(count, count, dtype=torch.float64)
    for (i, j), found in products.items():
        # Read at the end: on an accelerator each read waits for all that came before.
        total[i, j] = total[j, i] = torch.stack(found).double().sum().item() if found else 0.0
    return total


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
    divide: int,
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


def _chunks(gradients: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """The same elements of each, some at a time."""
    if not gradients:
        return iter(())
    size = _CHUNK if gradients[0].device.type == "cpu" else gradients[0].numel()
    return zip(*(gradient.split(size) for gradient in _flat(gradients)), strict=True)


def _flat(gradients: Sequence[Tensor]) -> list[Tensor]:
    """One-dimensional views, of elements in one order; copies only where memory layouts differ."""
    layouts = {gradient.stride() for gradient in gradients}
    order = sorted(range(gradients[0].dim()), key=gradients[0].stride, reverse=True)
    if len(layouts) > 1:
        return [gradient.reshape(-1) for gradient in gradients]
    return [gradient.permute(order).reshape(-1) for gradient in gradients]
