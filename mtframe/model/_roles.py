"""Modules that behave otherwise and stay what they are: their type, place in the state dict, hooks and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import nn

Role = Callable[[type[nn.Module]], Mapping[str, object]]


def take_role(module: nn.Module, role: Role) -> None:
    """Gives a module a subclass of its own class, which goes by the same name.

    Args:
        module: Changed in place.
        role: Makes the subclass's members of the class that they override.
    """
    base: Any = type(module)
    module.__class__ = _in_role(role, base)


@cache
def _in_role(role: Role, base: Any) -> Any:
    return type(base.__name__, (base,), {"__module__": base.__module__, **role(base)})
