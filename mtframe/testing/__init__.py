"""The conformance kit: whether a distribution's components keep their kind's contract.

A plugin's whole contract test is

    from mtframe.testing import conformance

    test_contract = conformance("kite-head")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._conformance import conformance as conformance
    from ._kit import Case as Case
    from ._kit import Kit as Kit
    from ._probe import Probe as Probe
    from ._probe import probe as probe
    from ._violation import Skip as Skip
    from ._violation import Violation as Violation

_HOME = {
    "Case": "_kit",
    "Kit": "_kit",
    "Probe": "_probe",
    "Skip": "_violation",
    "Violation": "_violation",
    "conformance": "_conformance",
    "probe": "_probe",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On demand (PEP 562): what probes imports needs no torch, and pytest is imported only by who runs it.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
