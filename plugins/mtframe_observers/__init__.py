"""Observers of a training: what it writes as csv, what TensorBoard shows, and when it ends early."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._csv import CsvLogger as CsvLogger
    from ._early_stopping import EarlyStopping as EarlyStopping
    from ._tensorboard import TensorBoard as TensorBoard

_HOME = {"CsvLogger": "_csv", "EarlyStopping": "_early_stopping", "TensorBoard": "_tensorboard"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562), so that who wants one needs not what another imports.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
