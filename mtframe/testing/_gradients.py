"""Whether gradients reach what they should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._violation import expect


def weighted(outputs: Mapping[Any, Tensor]) -> Tensor:
    """Every number of the outputs that gradients come from, times a random one, in one sum."""
    # Random: the plain sum of what is normalised does not depend on weights.
    terms = [
        (output.float() * torch.randn_like(output.float())).sum() for output in outputs.values() if output.requires_grad
    ]
    expect(terms, "no output has a gradient in training; is it computed under no_grad, or detached?")
    total: Tensor = torch.stack(terms).sum()
    return total


def check_gradients(module: nn.Module) -> None:
    """Raises Violation unless every parameter that is trained has a finite gradient."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    unreached = [name for name, parameter in trained.items() if parameter.grad is None]
    expect(not unreached, f"no gradient reaches {_some(unreached)}: nothing that comes out depends on it")
    strange = [name for name, p in trained.items() if p.grad is not None and not p.grad.isfinite().all()]
    expect(not strange, f"the gradient of {_some(strange)} is not finite")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
