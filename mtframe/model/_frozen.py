"""Parts of a network that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ._roles import take_role


def freeze(module: nn.Module, names: Sequence[str]) -> None:
    """Keeps parts of a module bit by bit: their parameters, their BatchNorm statistics, without dropout.

    They stay in evaluation mode whatever `train` is called on, and a copy's do too.

    Args:
        module: The network; changed in place.
        names: Of the modules and parameters in it.
    """
    for name in names:
        owner, _, last = name.rpartition(".")
        part: Any = getattr(module.get_submodule(owner), last)
        if isinstance(part, nn.Module):
            keep_evaluating(part)
        part.requires_grad_(False)


def keep_evaluating(module: nn.Module) -> None:
    """Puts a module and all within it into evaluation mode for good; its type and names stay what they are."""
    take_role(module, _evaluating)
    module.eval()


def _evaluating(base: type[nn.Module]) -> Mapping[str, object]:
    def train(module: nn.Module, mode: bool = True) -> nn.Module:
        return base.train(module, False)

    return {"train": train}
