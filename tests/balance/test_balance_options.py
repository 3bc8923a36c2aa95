"""Numbers that are no options: NaN passes a comparison that is the wrong way round, and infinity one that is right."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from mtframe.balance import (
    DWA,
    FAMO,
    STCH,
    CAGrad,
    FairGrad,
    GeometricMean,
    GradDrop,
    GradNorm,
    GradVac,
    LogSum,
    NashMTL,
    Random,
)
from mtframe.errors import RecipeError

TASKS = ("a", "b")

# With what each has to be.
OPTIONS: list[tuple[Callable[..., Any], str, str]] = [
    (lambda **given: STCH(TASKS, **given), "mu", "above 0"),
    (lambda **given: STCH(TASKS, **given), "warmup", "1 or more"),
    (lambda **given: DWA(TASKS, **given), "temperature", "above 0"),
    (lambda **given: DWA(TASKS, **given), "period", "1 or more"),
    (lambda **given: FAMO(TASKS, **given), "lr", "0 or more"),
    (lambda **given: FAMO(TASKS, **given), "weight_decay", "0 or more"),
    (lambda **given: Random(TASKS, **given), "spread", "0 or more"),
    (LogSum, "eps", "above 0"),
    (GeometricMean, "eps", "above 0"),
    (lambda **given: GradNorm(TASKS, **given), "alpha", "a number"),
    (lambda **given: GradNorm(TASKS, **given), "lr", "above 0"),
    (lambda **given: GradVac(TASKS, **given), "beta", "0 to 1"),
    (GradDrop, "leak", "0 to 1"),
    (CAGrad, "c", "0 or more"),
    (NashMTL, "max_norm", "0 or more"),
    (FairGrad, "alpha", "0, or 0.1 or more"),
]


@pytest.mark.parametrize(("make", "option", "wanted"), OPTIONS)
def test_nan_and_infinity_are_no_options(make: Callable[..., Any], option: str, wanted: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make(**{option: math.nan})
    assert str(caught.value) == f"{option}: must be {wanted}, got nan"
    # Of an update's length no limit is one.
    if option != "max_norm":
        with pytest.raises(RecipeError) as caught:
            make(**{option: math.inf})
        assert str(caught.value) == f"{option}: must be {wanted if wanted == '0 to 1' else 'finite'}, got inf"
