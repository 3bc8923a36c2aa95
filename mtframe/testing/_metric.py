"""Checks of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtframe.data import Sample
from mtframe.kinds import ExplainsGaps, Target

from ._check import checks
from ._companions import Companions
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# Images that are scored; a protocol that needs pairs needs all of them.
_MOST = 200

# How much values may differ, relatively: where other instances have added up, and where the same one has in another
# order. A sum in float32 passes; equal predictions that are taken as they come do not.
_OF_SUMS, _OF_ORDER = 1e-5, 1e-6


@dataclass
class Setup:
    """A metric and what it is given.

    Attributes:
        build: Makes a new instance.
        samples: Without their pixels.
        target: Their kind of target.
    """

    build: Any
    samples: list[Sample]
    target: Target

    @cached_property
    def perfect(self) -> list[Mapping[str, Tensor]]:
        """The best prediction of each."""
        return [self.target.perfect(sample) for sample in self.samples]

    @property
    def spoiled(self) -> list[Mapping[str, Tensor]]:
        """Predictions of which each is another image's."""
        return [*self.perfect[1:], self.perfect[0]]

    @property
    def mixed(self) -> list[Mapping[str, Tensor]]:
        """Every third prediction is another image's: neither best nor worst."""
        pairs = zip(self.perfect, self.spoiled, strict=True)
        return [spoiled if number % 3 == 0 else right for number, (right, spoiled) in enumerate(pairs)]

    def of(self, predictions: Sequence[Mapping[str, Tensor]], metric: Any = None) -> dict[str, float]:
        """The scores of predictions."""
        metric = metric or self.build()
        metric.update(predictions, self.samples)
        found: dict[str, float] = metric.compute()
        return found


def make(subject: Subject) -> Setup:
    """A metric over the evaluated split of the data set that is its companion."""
    companions = subject.kit.companions(subject)
    dataset = companions.evaluated
    wired = {"dataset": dataset, "info": companions.info, "outside": (), "learned": {}}
    subject.build(**wired)
    samples = [dataset[place].without_image() for place in range(min(_MOST, len(dataset)))]
    return Setup(lambda: subject.build(**wired), samples, companions.target)


def primary(subject: Subject) -> None:
    """`primary` is one of the numbers that it computes."""
    setup = make(subject)
    metric = setup.build()
    found = setup.of(setup.mixed, metric)
    expect(metric.primary in found, f"primary is {metric.primary!r}, computed are {', '.join(found)}")
    strange = [name for name, value in found.items() if isinstance(value, bool) or not isinstance(value, int | float)]
    expect(not strange, f"expected plain numbers, got {', '.join(f'{name} = {found[name]!r}' for name in strange)}")


def gaps(subject: Subject) -> None:
    """`gaps`, where it has that, says in words why values are NaN, by their names."""
    setup = make(subject)
    metric = setup.build()
    found = setup.of(setup.mixed, metric)
    said = metric.gaps() if isinstance(metric, ExplainsGaps) else {}
    names = [name for name in said if name not in found]
    expect(not names, f"gaps() has {', '.join(map(repr, names))}, computed are {', '.join(found)}")
    mute = [name for name, why in said.items() if not isinstance(why, str) or not why.strip() or why.endswith(".")]
    expect(not mute, f"gaps(): expected a clause without a full stop, got {said[mute[0]] if mute else ''!r}")


def perfect_is_best(subject: Subject) -> None:
    """A perfect prediction scores better than others, in the direction of `higher_is_better`."""
    setup = make(subject)
    metric = setup.build()
    best, mixed, worst = (_primary(metric, setup.of(given)) for given in (setup.perfect, setup.mixed, setup.spoiled))
    if math.isnan(best):
        raise Skip(f"{metric.primary} cannot be resolved with so little data")
    sign = 1 if metric.higher_is_better else -1
    scores = (
        f"{metric.primary} is {best:.4g} of perfect predictions, {mixed:.4g} of some wrong, {worst:.4g} of all wrong"
    )
    expect(sign * best >= max(sign * mixed, sign * worst), f"{scores}; higher_is_better is {metric.higher_is_better}")
    expect(best != worst or best != mixed, f"{scores}: it cannot tell them apart")


def order_does_not_matter(subject: Subject) -> None:
    """Predictions in another order, in other batches, score the same, also where some are equal."""
    setup = make(subject)
    for given, kind in ((setup.mixed, ""), (coarse(setup.mixed), "in bfloat16, ")):
        wanted = setup.of(given)
        for size, seed in ((3, None), (1, 0), (7, 1)):
            order = shuffled(len(given), seed)
            found = in_batches(setup.build(), given, setup.samples, order, size)
            how = "backwards" if seed is None else "shuffled"
            _check_same(found, wanted, f"{kind}{how} and in batches of {size}", _OF_ORDER)


def reset(subject: Subject) -> None:
    """After `reset` it scores as a new one."""
    setup = make(subject)
    metric = setup.build()
    metric.update(setup.perfect, setup.samples)
    metric.reset()
    _check_same(setup.of(setup.mixed, metric), setup.of(setup.mixed), "after reset()")


def merges(subject: Subject) -> None:
    """Two instances that saw half of the images each, merged, score as one that saw all."""
    setup = make(subject)
    half, parts = len(setup.samples) // 2, (setup.build(), setup.build())
    for metric, own in zip(parts, (slice(half), slice(half, None)), strict=True):
        metric.update(setup.mixed[own], setup.samples[own])
    parts[0].merge(parts[1])
    _check_same(parts[0].compute(), setup.of(setup.mixed), "merged of two halves")


def primary_of(companions: Companions, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float:
    """What an installed metric says of predictions on training images, larger is better.

    Raises:
        Skip: None can be built for them.
    """

    def scored(candidate: Subject) -> float:
        metric = candidate.build(dataset=companions.dataset, info=companions.info, outside=(), learned={})
        metric.update(predictions, [sample.without_image() for sample in samples])
        value = _primary(metric, metric.compute())
        if math.isnan(value):
            raise Skip(f"{metric.primary} cannot be resolved with so little data")
        return value if metric.higher_is_better else -value

    found: float = companions.first("metric", scored)
    return found


def coarse(predictions: Sequence[Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
    """The same numbers as a network in bfloat16 gives them: 8 bits each, so that many are equal."""
    return [
        {name: its.bfloat16().to(its.dtype) if its.is_floating_point() else its for name, its in prediction.items()}
        for prediction in predictions
    ]


def shuffled(length: int, seed: int | None) -> list[int]:
    """A permutation; for None the falling one."""
    if seed is None:
        return list(range(length))[::-1]
    order: list[int] = torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def in_batches(
    metric: Any, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample], order: Sequence[int], size: int
) -> dict[str, float]:
    """The scores of a metric that is shown images in an order, `size` at a time."""
    for start in range(0, len(order), size):
        places = order[start : start + size]
        metric.update([predictions[place] for place in places], [samples[place] for place in places])
    found: dict[str, float] = metric.compute()
    return found


def _primary(metric: Any, found: Mapping[str, float]) -> float:
    return float(found.get(metric.primary, float("nan")))


def _check_same(found: Mapping[str, float], wanted: Mapping[str, float], how: str, tolerance: float = _OF_SUMS) -> None:
    expect(set(found) == set(wanted), f"{how}: computed {', '.join(found)}, expected {', '.join(wanted)}")
    for name, value in wanted.items():
        both_nan = math.isnan(found[name]) and math.isnan(value)
        same = both_nan or math.isclose(found[name], value, rel_tol=tolerance, abs_tol=1e-8)
        expect(same, f"{how}: {name} is {found[name]:.9g}, expected {value:.9g}")


CHECKS = checks(primary, gaps, perfect_is_best, order_does_not_matter, reset, merges)
