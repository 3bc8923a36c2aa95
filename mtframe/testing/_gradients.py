"""Whether gradients reach what they should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._violation import Skip, expect

# Every parameter of one that works has a gradient in one of these. A ReLU or a dropped path may hide it in one.
_TRIES = 4

# Standard deviation of the numbers that take the place of parameters which are zero at first.
_SMALL = 0.02


def check_gradients(module: nn.Module, outputs: Callable[[], Mapping[Any, Tensor]]) -> None:
    """Raises Violation unless every parameter that is trained has a finite gradient that is not zero everywhere.

    Args:
        module: In training mode; its parameters are changed.
        outputs: What comes out of it, at each call for other inputs.

    Raises:
        Skip: Nothing in it is trained.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trained:
        raise Skip("it has no parameters that are trained")
    wake(trained.values())
    left = trained
    for _ in range(_TRIES):
        module.zero_grad(set_to_none=True)
        _weighted(outputs()).backward()
        unreached = [name for name, parameter in trained.items() if parameter.grad is None]
        expect(not unreached, f"no gradient reaches {some(unreached)}: nothing that comes out depends on it")
        strange = [name for name, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
        expect(not strange, f"the gradient of {some(strange)} is not finite")
        left = {name: parameter for name, parameter in left.items() if not _taught(parameter)}
        if not left:
            return
        _shake(trained.values())
    expect(False, f"no gradient reaches {some(list(left))}: it is zero, whatever the weights and inputs are")


def _weighted(outputs: Mapping[Any, Tensor]) -> Tensor:
    """Every number of the outputs that gradients come from, times a random one, in one sum."""
    # Random: the plain sum of what is normalised does not depend on weights.
    terms = [
        (output.float() * torch.randn_like(output.float())).sum() for output in outputs.values() if output.requires_grad
    ]
    expect(terms, "no output has a gradient in training; is it computed under no_grad, or detached?")
    total: Tensor = torch.stack(terms).sum()
    return total


@torch.no_grad()
def wake(parameters: Any) -> None:
    """Makes those that are all zero small: a last layer that begins at zero hides what comes before it."""
    for parameter in parameters:
        if not parameter.any():
            parameter.normal_(std=_SMALL)


@torch.no_grad()
def _shake(parameters: Any) -> None:
    """Makes all of them a little different."""
    for parameter in parameters:
        parameter.add_(torch.randn_like(parameter), alpha=_SMALL)


def _taught(parameter: nn.Parameter) -> bool:
    return not parameter.numel() or (parameter.grad is not None and bool(parameter.grad.any()))


def some(names: list[str]) -> str:
    """The first few of these names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
