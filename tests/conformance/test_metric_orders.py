"""Every installed metric gives the same values for the same predictions, in whatever order and batches they come."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtframe.testing import Kit
from mtframe.testing._metric import Setup, coarse, in_batches, make
from mtframe.testing._subject import Subject

KIT = Kit("mtframe")
METRICS = [subject for component in KIT.components if component.kind == "metric" for subject in KIT.subjects(component)]
# Of what a head in bfloat16 says of how sure it is.
_SURE = (1.0, 0.75, 0.50390625, 0.5)


@pytest.fixture(scope="module", params=METRICS, ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    subject: Subject = request.param
    return make(subject)


def _less_sure(prediction: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """What lies in 0..1, as scores and probabilities do, times a factor."""
    return {
        name: its * factor if its.is_floating_point() and its.numel() and its.min() >= 0 and its.max() <= 1 else its
        for name, its in prediction.items()
    }


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_values_are_those_of_the_split_in_its_own_order(setup: Setup, data: st.DataObject) -> None:
    count = len(setup.samples)
    rng = data.draw(st.randoms(use_true_random=False))
    whose = [place if rng.random() < 0.6 else rng.randrange(count) for place in range(count)]
    given_ = coarse([_less_sure(setup.perfect[place], rng.choice(_SURE)) for place in whose])
    expected = in_batches(setup.build(), given_, setup.samples, range(count), count)

    order = data.draw(st.permutations(range(count)))
    size, cut = data.draw(st.integers(1, 16)), data.draw(st.integers(1, count - 1))
    shuffled = in_batches(setup.build(), given_, setup.samples, order, size)
    parts = setup.build(), setup.build()
    for part, places in zip(parts, (order[:cut], order[cut:]), strict=True):
        part.update([given_[place] for place in places], [setup.samples[place] for place in places])
    parts[1].merge(parts[0])
    for found in (shuffled, parts[1].compute()):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            equal = math.isclose(found[name], value, rel_tol=0, abs_tol=1e-9) or found[name] == value
            assert equal or (math.isnan(found[name]) and math.isnan(value)), name


def test_there_are_metrics_of_several_kinds_of_target() -> None:
    assert {"coco-ap", "classification", "face-verification"} <= {metric.component.name for metric in METRICS}
