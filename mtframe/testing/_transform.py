"""Checks of transforms."""

# Shapes: B images, M boxes (padded).

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtframe.data import Batch, Sample, transform_batch
from mtframe.errors import MtframeError

from ._check import checks
from ._subject import SIZE
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# How far boxes may be from where they were, in pixels of the network's input: images are resized to whole pixels.
_PIXELS = 1.5


def make(subject: Subject, *, train: bool = True) -> Any:
    """A transform for the data set that is its companion."""
    return subject.build(size=SIZE, train=train, info=subject.kit.companions(subject).info)


def size(subject: Subject) -> None:
    """A batch has one image a sample, uint8 and square, of the wired size where `fixed_size` says so."""
    given = _samples(subject)
    for train in (True, False):
        transform = make(subject, train=train)
        batch = _batch(transform, given)
        shape, dtype = tuple(batch.images.shape), batch.images.dtype
        side = SIZE if transform.fixed_size or not train else shape[-1]
        expect(shape == (len(given), 3, side, side), f"expected {(len(given), 3, side, side)}, got {shape}")
        expect(dtype == torch.uint8, f"expected uint8 images, got {dtype}")
        _check_rows(batch, len(given))
    expect(len(batch.samples) == len(given), f"in evaluation a batch keeps its samples, got {len(batch.samples)}")


def deterministic(subject: Subject) -> None:
    """One generator gives one batch: everything random comes from it, or from torch's."""
    transform, given = make(subject), _samples(subject)
    _check_same(_batch(transform, given), _batch(transform, given), "two batches of the same generator differ")


def evaluation_is_exact(subject: Subject) -> None:
    """Without augmentation nothing is random."""
    transform, given = make(subject, train=False), _samples(subject)
    some, others = (_batch(transform, given, seed) for seed in (0, 1))
    _check_same(some, others, "two batches of different generators differ, though train is False")


def one_sample(subject: Subject) -> None:
    """A batch may be of a single sample, in training and in evaluation."""
    for train in (True, False):
        batch = _batch(make(subject, train=train), _samples(subject)[:1])
        expect(len(batch.images) == 1, f"expected one image, got {len(batch.images)}")
        _check_rows(batch, 1)


def pictures(subject: Subject) -> None:
    """Samples without labels, as `mtframe predict` has, make a batch, or are refused with an error of its own."""
    bare = [replace(sample, target={}) for sample in _samples(subject)]
    try:
        batch = _batch(make(subject, train=False), bare)
    except MtframeError as refused:
        raise Skip(f"it refuses pictures without labels: {refused}") from refused
    expect(len(batch.images) == len(bare), f"expected {len(bare)} images, got {len(batch.images)}")


def geometry(subject: Subject) -> None:
    """Mapped back by the batch's geometry, its boxes lie on those of the original images."""
    given = _samples(subject)
    for train in (True, False):
        batch = _batch(make(subject, train=train), given)
        if "boxes" not in batch.targets:
            raise Skip("only `boxes` are known to have coordinates; check yours in a test of your own")
        for number, sample in enumerate(given):
            _check_boxes(batch, number, sample, whole=not train)


def picklable(subject: Subject) -> None:
    """It can be pickled, as loader processes need on most systems, and the copy makes the same batches."""
    given = _samples(subject)
    for train in (True, False):
        transform = make(subject, train=train)
        other = pickle.loads(pickle.dumps(transform))  # noqa: S301 - what was pickled a moment ago
        batch, copied = _batch(transform, given), _batch(other, given)
    # Those of evaluation: whether training is deterministic is another check's.
    _check_same(batch, copied, "the copy makes another batch")


def _samples(subject: Subject) -> list[Sample]:
    found: list[Sample] = subject.kit.companions(subject).samples
    return found


def _batch(transform: Any, samples: Sequence[Sample], seed: int = 0) -> Batch:
    return transform_batch(transform, list(samples), np.random.default_rng(seed))


def _check_rows(batch: Batch, count: int) -> None:
    for name in ("scale", "offset", "size"):
        shape = tuple(getattr(batch.geometry, name).shape)
        expect(shape == (count, 2), f"expected geometry.{name} {(count, 2)}, got {shape}")
    for name, tensor in batch.targets.items():
        expect(len(tensor) == count, f"expected a row of {name} for each of {count} images, got {len(tensor)}")


def _check_same(one: Batch, other: Batch, otherwise: str) -> None:
    expect(torch.equal(one.images, other.images), f"{otherwise}: images")
    for name in one.targets:
        same = torch.equal(one.targets[name].nan_to_num(), other.targets[name].nan_to_num())
        expect(same, f"{otherwise}: {name}")
    for name in ("scale", "offset"):
        same = torch.equal(getattr(one.geometry, name), getattr(other.geometry, name))
        expect(same, f"{otherwise}: geometry.{name}")


def _check_boxes(batch: Batch, number: int, sample: Sample, *, whole: bool) -> None:
    """Raises Violation unless each box lies in one of the sample's of its class, or on it with `whole`."""
    valid = batch.targets["valid"][number] if "valid" in batch.targets else slice(None)
    boxes = batch.geometry.to_original(batch.targets["boxes"][number][valid].float(), number)
    labels = batch.targets["labels"][number][valid]
    wanted, kinds = sample.target["boxes"].float(), sample.target["labels"]
    near = _PIXELS / batch.geometry.scale[number].abs().min()
    for box, label in zip(boxes, labels, strict=True):
        same = wanted[kinds == label]
        inside = ((box[:2] >= same[:, :2] - near) & (box[2:] <= same[:, 2:] + near)).all(1)
        on = ((box - same).abs() <= near).all(1)
        expect((on if whole else inside).any(),
               f"a box of class {label} comes back to {[round(v, 1) for v in box.tolist()]} of sample {sample.index}, "
               f"where there is none; its own are {same.tolist()}")  # fmt: skip


CHECKS = checks(size, deterministic, evaluation_is_exact, one_sample, pictures, geometry, picklable)
