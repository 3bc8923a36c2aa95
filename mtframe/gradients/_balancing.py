"""What a balancer makes of the tasks' losses or gradients, on their way through a backward pass."""

# Shapes: T tasks.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeGuard

import torch
from torch import Tensor, nn

from mtframe.kinds import Balancer, GradientBalancer, GradientCombiner, KnowsPresent, WeighsHeads
from mtframe.model import MultiTaskModel

from ._gram import combined, gram_matrix, weighted_sum
from ._passes import Gradients, TaskPass, added

AnyBalancer = Balancer | GradientBalancer | GradientCombiner

# Of which gradients a balancer gets the inner products: those of the shared parameters, or those of the feature maps.
Place = Literal["parameters", "maps"]


def of_gradients(balancer: AnyBalancer) -> TypeGuard[GradientBalancer | GradientCombiner]:
    """Whether a balancer weighs gradients, and not losses."""
    return isinstance(balancer, GradientBalancer | GradientCombiner)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The plain sum of one loss at least."""
    # A running sum, not a stack, which would tie the tasks' graphs together.
    first, *others = losses.values()
    for loss in others:
        first = first + loss
    return first


def objective(balancer: AnyBalancer, losses: Mapping[str, Tensor]) -> Tensor:
    """What is differentiated: what a balancer of losses makes of them; their sum if it is one of gradients."""
    if isinstance(balancer, GradientBalancer | GradientCombiner):
        return total(losses)
    return balancer(losses)


def to_the_maps(
    balancer: AnyBalancer, traced: TaskPass, lenders: Mapping[str, str], at: Place, divide: int
) -> dict[str, float] | None:
    """The backward pass of losses and heads, down to the maps.

    Returns:
        By task, the weight that the gradients at its maps have by then; None if the balancer is yet to weigh those of
        the shared parameters.
    """
    losses, cut = traced.losses, traced.cut
    weighs = of_gradients(balancer)
    for loss in () if weighs else losses.values():
        if loss.requires_grad:
            loss.retain_grad()
    (objective(balancer, losses) / divide).backward()
    if not weighs:
        # Only its own loss depends on a task's maps: their gradient is w_t times that of the loss.
        return {task: 0.0 if loss.grad is None else loss.grad.item() * divide for task, loss in losses.items()}
    if at == "parameters":
        return None
    # Tasks on the same images share maps.
    maps: dict[str, Gradients] = {
        task: {f"{lenders.get(task, task)}/{i}": leaf.grad for i, leaf in enumerate(cut.leaves[task])}
        for task in losses
    }
    weights = _weights(balancer, losses, maps, divide)
    cut.scale(weights)
    return weights


def balance(
    balancer: AnyBalancer,
    parameters: Mapping[str, nn.Parameter],
    losses: Mapping[str, Tensor],
    gradients: Mapping[str, Gradients],
    divide: float,
) -> dict[str, float]:
    """Adds the balanced gradient to the parameters', in the memory of the tasks' gradients.

    Returns:
        The weights by task; none of a balancer that combines gradients.
    """
    if isinstance(balancer, GradientCombiner):
        _tell_present(balancer, losses)
        found = combined(gradients, list(losses), parameters, balancer.combine, _stacked(losses), divide)
        for name, gradient in found.items():
            accumulate(parameters[name], gradient)
        return {}
    weights = _weights(balancer, losses, gradients, divide)
    for name, parameter in parameters.items():
        accumulate(parameter, weighted_sum([(gradients[task][name], weight) for task, weight in weights.items()]))
    return weights


def add_up(parameters: Mapping[str, nn.Parameter], gradients: Mapping[str, Gradients]) -> None:
    """Adds the sum of the tasks' gradients to the parameters'."""
    for name, parameter in parameters.items():
        accumulate(parameter, added([of_task[name] for of_task in gradients.values()]))


def unweighed(gradients: dict[str, Gradients], weights: Mapping[str, float]) -> dict[str, Gradients]:
    """Gradients that were weighed, as they were before, in place; those of a task that weighs 0 stay 0."""
    for task, of_task in gradients.items():
        for gradient in of_task.values() if weights[task] not in (0, 1) else ():
            if gradient is not None:
                gradient.div_(weights[task])
    return gradients


def to_be_changed(gradients: Mapping[str, Gradients], tasks: Iterable[str]) -> dict[str, Gradients]:
    """The same for `balance`, which sums up in the memory of the first task's gradient of a parameter: in its own."""
    copied = {task: dict(gradients[task]) for task in tasks}
    for name in next(iter(copied.values())):
        for of_task in copied.values():
            if (gradient := of_task[name]) is not None:
                of_task[name] = gradient.clone()
                break
    return copied


@contextmanager
def heads_apart(model: MultiTaskModel, balancer: AnyBalancer) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Gives a function that weighs this pass's gradients of heads and losses, if the balancer wants that."""
    wanted = isinstance(balancer, WeighsHeads) and balancer.weighs_heads
    own = {
        task: [*model.heads[task].parameters(), *model.losses[task].parameters()]
        for task in (model.tasks if wanted else ())
    }
    before = {p: p.grad for parameters in own.values() for p in parameters}
    for parameter in before:
        parameter.grad = None

    def weigh(weights: Mapping[str, float]) -> None:
        for task, weight in weights.items():
            for parameter in own.get(task, ()):
                if parameter.grad is not None:
                    parameter.grad.mul_(weight)

    yield weigh
    for parameter, gradient in before.items():
        accumulate(parameter, gradient)


def accumulate(parameter: Tensor, gradient: Tensor | None) -> None:
    """Adds to a parameter's `.grad`, which may keep the tensor."""
    if gradient is not None:
        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _weights(
    balancer: AnyBalancer, losses: Mapping[str, Tensor], gradients: Mapping[str, Gradients], divide: float
) -> dict[str, float]:
    assert isinstance(balancer, GradientBalancer)
    _tell_present(balancer, losses)
    gram = gram_matrix([gradients[task] for task in losses]) * divide**2
    return dict(zip(losses, balancer.weigh(gram, _stacked(losses)).tolist(), strict=True))


def _tell_present(balancer: AnyBalancer, losses: Mapping[str, Tensor]) -> None:
    if isinstance(balancer, KnowsPresent):
        balancer.present = tuple(losses)


def _stacked(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.tensor([loss.item() for loss in losses.values()], dtype=torch.float64)
