"""Arithmetic on the gradients of several tasks that are kept parameter by parameter."""

# Shapes: T tasks, P shared parameters, n elements at a time.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

# Elements at a time: T of them stay in a core's cache.
_CHUNK = 1 << 16


def gram_matrix(gradients: Sequence[Mapping[str, Tensor | None]]) -> Tensor:
    """(T, T) float64 on the CPU: inner products of the tasks' gradients, each by name of a parameter, None for zero.

    Products are summed in the gradients' precision over 65536 elements at a time, and these sums in float64.
    """
    count = len(gradients)
    total = torch.zeros(count, count, dtype=torch.float64)
    names = dict.fromkeys(name for of_task in gradients for name in of_task)
    blocks: list[Tensor] = []
    where: list[list[int]] = []
    for name in names:
        present = [i for i in range(count) if gradients[i].get(name) is not None]
        for chunk_Tn in _chunks([gradients[i][name] for i in present]):
            stacked_Tn = torch.stack(chunk_Tn)
            blocks.append(stacked_Tn @ stacked_Tn.T)
            where.append(present)
    for block, present in zip(blocks, where, strict=True):
        # Read at the end: on an accelerator each read waits for all that came before.
        total[torch.tensor(present)[:, None], torch.tensor(present)] += block.double().cpu()
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
) -> dict[str, Tensor]:
    """What `combine` makes of all gradients in one (T, P) buffer, by parameter. Empties `gradients`."""
    sizes = [parameter.numel() for parameter in parameters.values()]
    first = next(iter(parameters.values()))
    buffer_TP = first.new_zeros(len(tasks), sum(sizes), requires_grad=False)
    for row_P, task in zip(buffer_TP, tasks, strict=True):
        for part, name in zip(row_P.split(sizes), parameters, strict=True):
            gradient = gradients[task].pop(name)
            if gradient is not None:
                part.copy_(gradient.reshape(-1))
    total_P = combine(buffer_TP, losses)
    parts = zip(total_P.split(sizes), parameters.items(), strict=True)
    return {name: part.view(parameter.shape).clone() for part, (name, parameter) in parts}


def _chunks(gradients: Sequence[Tensor | None]) -> Iterator[tuple[Tensor, ...]]:
    """The same elements of each, some at a time."""
    flat = _flat([gradient for gradient in gradients if gradient is not None])
    return zip(*(gradient.split(_CHUNK) for gradient in flat), strict=True)


def _flat(gradients: Sequence[Tensor]) -> list[Tensor]:
    """One-dimensional views, of elements in one order; copies only where memory layouts differ."""
    layouts = {gradient.stride() for gradient in gradients}
    order = sorted(range(gradients[0].dim()), key=gradients[0].stride, reverse=True)
    if len(layouts) > 1:
        return [gradient.reshape(-1) for gradient in gradients]
    return [gradient.permute(order).reshape(-1) for gradient in gradients]
