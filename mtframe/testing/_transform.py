"""Checks of transforms."""

# Shapes: B inputs, h and w of an input.

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtframe.data import Inputs, Placement, Sample, make_inputs, shares
from mtframe.errors import BadImageError, MtframeError
from mtframe.kinds import FollowsProgress, MixesImages

from ._check import checks, passes_first
from ._spots import Spot, seen_where_placed, spot_on
from ._subject import SIZE
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# How many batches are checked in training, enough to have mirrored images and mosaics among them.
_DRAWS = 8

# Where in the input spots are meant to be, x and y as parts of its sides.
_PLACES = ((0.3, 0.35), (0.7, 0.4), (0.4, 0.7), (0.6, 0.6), (0.35, 0.55))


def make(subject: Subject, *, train: bool = True) -> Any:
    """A transform for the data set that is its companion."""
    return subject.build(size=SIZE, train=train)


def inputs(subject: Subject) -> None:
    """It makes one input a sample, uint8, all of one size: the wired one, square, where `fixed_size` says so."""
    given = _samples(subject)
    for train in (True, False):
        transform = make(subject, train=train)
        found = _inputs(transform, given)
        shape, dtype = tuple(found.images.shape), found.images.dtype
        expect(len(shape) == 4, f"expected (B, 3, H, W), got {shape}")
        wanted = (len(given), 3, *((SIZE, SIZE) if transform.fixed_size else shape[2:]))
        expect(shape == wanted, f"expected {wanted}, got {shape}")
        expect(dtype == torch.uint8, f"expected uint8 images, got {dtype}")


def placements(subject: Subject) -> None:
    """Placements of an input begin with its own sample's; more may follow in training, if `mixes` says so."""
    given = _samples(subject)
    for train in (True, False):
        transform = make(subject, train=train)
        for seed in range(_DRAWS if train else 1):
            found = _inputs(transform, given, seed)
            expect(len(found.placements) == len(given), f"{len(given)} samples, but {len(found.placements)} placements")
            for number, its in enumerate(found.placements):
                _check_placements(f"input {number}", number, its, found, given)
                mixes = isinstance(transform, MixesImages) and transform.mixes
                why = "but `mixes` is not True" if train else "in evaluation"
                expect(len(its) == 1 or (train and mixes), f"input {number} is made of {len(its)} images, {why}")


def deterministic(subject: Subject) -> None:
    """One generator gives one batch: everything random comes from it, or from torch's; steps may come in any order."""
    transform, given = make(subject), _samples(subject)
    before = _inputs(transform, given)
    _check_same(before, _inputs(transform, given), "two batches of the same generator differ")
    if isinstance(transform, FollowsProgress):
        for fraction in (0.0, 0.99, 0.0):
            transform.set_progress(fraction)
            after = _inputs(transform, given)
        _check_same(
            before, after, "at the start of training, a batch differs from the same one made after one of its end"
        )


def evaluation_is_exact(subject: Subject) -> None:
    """Without augmentation nothing is random."""
    transform, given = make(subject, train=False), _samples(subject)
    some, others = (_inputs(transform, given, seed) for seed in (0, 1))
    _check_same(some, others, "two batches of different generators differ, though train is False")


def one_sample(subject: Subject) -> None:
    """A batch may be of a single sample, in training and in evaluation."""
    for train in (True, False):
        found = _inputs(make(subject, train=train), _samples(subject)[:1])
        expect(len(found.images) == 1, f"expected one input, got {len(found.images)}")
        expect(len(found.placements) == 1, f"expected the placements of one input, got {len(found.placements)}")


def pictures(subject: Subject) -> None:
    """Samples without labels, as `mtframe predict` has, make inputs, or are refused with an error of its own."""
    bare = [replace(sample, target={}) for sample in _samples(subject)]
    try:
        found = _inputs(make(subject, train=False), bare)
    except MtframeError as refused:
        raise Skip(f"it refuses pictures without labels: {refused}") from refused
    expect(len(found.images) == len(bare), f"expected {len(bare)} inputs, got {len(found.images)}")


def pixels_where_placed(subject: Subject) -> None:
    """A bright spot on a dark image is seen in the input where the placement says, within two pixels."""
    for check in (inputs, placements, deterministic, evaluation_is_exact):
        passes_first(check, subject)
    for train in (False, True):
        transform, found = make(subject, train=train), list[bool]()
        for number, spots in enumerate(itertools.islice(_spots(subject, transform), _DRAWS if train else 2)):
            try:
                shown = _inputs(transform, [spot.sample for spot in spots], number)
            except BadImageError as refused:
                raise Skip(f"it makes nothing of an image of a spot: {refused}") from refused
            found += seen_where_placed(shown, spots)
        when = "in training" if train else "in evaluation"
        if not found:
            raise Skip(f"no spot came into view {when}")
        # In training something may be put over it, but not over most.
        enough = all(found) or (train and sum(found) >= len(found) / 2)
        expect(enough, f"{when} {found.count(False)} of {len(found)} spots are not seen where placements have them")


def picklable(subject: Subject) -> None:
    """It can be pickled, as loader processes need on most systems, and the copy makes the same inputs."""
    given = _samples(subject)
    for train in (True, False):
        transform = make(subject, train=train)
        other = pickle.loads(pickle.dumps(transform))  # noqa: S301 - what was pickled a moment ago
        found, copied = _inputs(transform, given), _inputs(other, given)
    # Those of evaluation: whether training is deterministic is another check's.
    _check_same(found, copied, "the copy makes other inputs")


def _samples(subject: Subject) -> list[Sample]:
    found: list[Sample] = subject.kit.companions(subject).samples
    return found


def _inputs(transform: Any, samples: Sequence[Sample], seed: int = 0) -> Inputs:
    found = make_inputs(transform, list(samples), np.random.default_rng(seed))
    expect(isinstance(found, Inputs), f"expected mtframe.data.Inputs, got {type(found).__name__}")
    return found


def _spots(subject: Subject, transform: Any) -> Iterator[list[Spot]]:
    """Batches of spots that are in view, at least in evaluation; every other as if it were decoded at half its size."""
    given = _samples(subject)
    whole = _inputs(make(subject, train=False), given).placements
    for number in itertools.count():
        places = itertools.islice(itertools.cycle(_PLACES), number, None)
        halved = number % 2 == 1 and transform.decode_size is not None
        yield [spot_on(sample, its[0], next(places), halved=halved) for sample, its in zip(given, whole, strict=True)]


def _check_placements(of: str, number: int, its: Sequence[Placement], found: Inputs, given: Sequence[Sample]) -> None:
    order = [one.sample for one in its]
    expect(order[:1] == [number], f"{of}: expected the placement of its own sample {number} first, got {order}")
    side = tuple(found.images.shape[-2:])
    for one in its:
        expect(0 <= one.sample < len(given), f"{of}: there is no sample {one.sample}, only {len(given)}")
        size, wanted = tuple(one.size), tuple(given[one.sample].size)
        expect(size == wanted, f"{of}: its placement is of an original of {size}, which is {wanted} (height, width)")
        expect(tuple(one.input_size) == side, f"{of}: its placement is in one of {tuple(one.input_size)}, not {side}")
    # A window above another hides what is below it, once.
    expect(sum(shares(its)) < 1.001, f"{of}: two of the windows that lie above others overlap")


def _check_same(one: Inputs, other: Inputs, otherwise: str) -> None:
    expect(torch.equal(one.images, other.images), f"{otherwise}: images")
    expect(list(map(tuple, one.placements)) == list(map(tuple, other.placements)), f"{otherwise}: placements")


CHECKS = checks(
    inputs, placements, deterministic, evaluation_is_exact, one_sample, pictures, pixels_where_placed, picklable
)
