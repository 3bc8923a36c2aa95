"""Gradients through every sharing scheme: the engine's, which balancers weigh, against autograd, in float64."""

from __future__ import annotations

from typing import Any

import pytest

from mtframe.model import Layers, Network
from mtframe_sharing import MTAN, Adapters, CrossStitch, FiLM, MMoE
from test_gradients import Staged, Step, assert_same

SCHEMES: dict[str, tuple[Any, dict[str, Any]]] = {
    "network": (Network, {}),
    "layers": (Layers, {"shared": 1}),
    "cross-stitch": (CrossStitch, {}),
    "mtan": (MTAN, {}),
    "adapters": (Adapters, {}),
    "film": (FiLM, {}),
    "mmoe": (MMoE, {"experts": 2}),
}

schemes = pytest.mark.parametrize("name", SCHEMES)


def step_of(name: str, **options: Any) -> Step:
    scheme, own = SCHEMES[name]
    return Step(Staged(), sharing=scheme, **own, **options)


@schemes
@pytest.mark.parametrize("also", [{}, {"people": "objects"}], ids=["own", "also"])
def test_rows_tell_each_tasks_gradient_apart(name: str, also: dict[str, str]) -> None:
    step = step_of(name, also=also)
    expected = step.expected()
    assert expected["faces"]
    assert_same(step.found(), expected)
    assert step.fallbacks == []
