"""A check: a function with a name and a line of description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._violation import Skip

if TYPE_CHECKING:
    from ._subject import Subject


@dataclass(frozen=True)
class Check:
    """One thing that is asserted of a component.

    Attributes:
        run: Raises Violation, Skip, or whatever the component raises.
        early: Whether it says something of a component that cannot be built.
    """

    run: Callable[[Subject], None]
    early: bool = False

    @property
    def name(self) -> str:
        """Such as `static-shapes`."""
        return self.run.__name__.strip("_").replace("_", "-")

    @property
    def summary(self) -> str:
        """What is asserted, in a line."""
        return (self.run.__doc__ or "").partition("\n")[0]


def passes_first(check: Callable[[Subject], None], subject: Subject) -> None:
    """Raises Skip where another check fails, or is skipped: it says all that there is to say."""
    try:
        check(subject)
    except Skip:
        raise
    except (Exception, SystemExit) as error:
        raise Skip(f"see the check {Check(check).name}, which it fails") from error


def checks(*functions: Callable[[Subject], None], early: bool = False) -> tuple[Check, ...]:
    """The functions as checks."""
    return tuple(Check(function, early) for function in functions)
