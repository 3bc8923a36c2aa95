"""Sharing schemes: cross-stitch units, attention over shared maps, task adapters, FiLM and shared experts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._adapters import Adapters as Adapters
    from ._adapters import FiLM as FiLM
    from ._cross_stitch import CrossStitch as CrossStitch
    from ._mmoe import MMoE as MMoE
    from ._mtan import MTAN as MTAN

_HOME = {
    "Adapters": "_adapters",
    "CrossStitch": "_cross_stitch",
    "FiLM": "_adapters",
    "MMoE": "_mmoe",
    "MTAN": "_mtan",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that who wants one needs not what another imports.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
