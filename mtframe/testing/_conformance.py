"""The checks as pytest's test cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._kit import Case, Kit
from ._violation import Skip


def conformance(dist: str, *, options: Mapping[str, Mapping[str, Any]] | None = None) -> Callable[[Case], None]:
    """A test function with one case for each component of a distribution and each check of its kind.

    `test_contract = conformance("kite-head")` is a whole test module; a case is called `head:kite-static-shapes`. What
    a component needs beside it comes from its own distribution, from mtframe, or from the one that offers its kind of
    target. A check that cannot be made is skipped, and says what to pass.

    Args:
        dist: Name of an installed distribution.
        options: Options by component, `{"dataset:kites": {"root": path}}`, for those that cannot be built otherwise.

    Raises:
        RecipeError: No such distribution offers components, or `options` names one that nobody offers.
    """
    import pytest

    cases = Kit(dist, options).cases()

    @pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])
    def test_contract(case: Case) -> None:
        __tracebackhide__ = True
        try:
            case.run()
        except Skip as reason:
            pytest.skip(str(reason))

    return test_contract
