"""What a check says when it does not pass."""

from __future__ import annotations


class Violation(AssertionError):
    """A component does not keep its kind's contract; the message says what was expected and what came."""


class Skip(Exception):
    """A check cannot be made here; the message says why, and what to pass so that it can."""


def expect(holds: object, otherwise: str) -> None:
    """Raises Violation with a message unless something holds.

    Not `assert`, which Python leaves out with -O, and pytest would explain by values of no interest.
    """
    __tracebackhide__ = True
    if not holds:
        raise Violation(otherwise)
