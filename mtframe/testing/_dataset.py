"""Checks of data sets."""

# Shapes: H height, W width.

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mtframe._fit import targets_of
from mtframe.data import Sample
from mtframe.errors import RecipeError

from ._check import checks
from ._targets import check_target
from ._violation import Skip, expect

if TYPE_CHECKING:
    from ._subject import Subject

# Samples of a split that are looked at, from all over it.
_SAMPLES = 12


def open_splits(subject: Subject) -> list[tuple[str, Any]]:
    """The splits that there are, that for training first; data need not have all that its format knows.

    Raises:
        Exception: What the data set raises of the first split, where there is none; of any split, unless it says by a
            RecipeError that it has none.
    """
    found, absent = [], list[RecipeError]()
    for split in sorted(subject.cls.splits, key=lambda name: name != "train"):
        try:
            found.append((split, subject.build(split=split)))
        except RecipeError as error:
            absent.append(error)
    if not found:
        raise absent[0] if absent else Skip("its class attribute `splits` is empty")
    return found


def make(subject: Subject) -> Any:
    """Its first split."""
    return subject.kit.splits(subject)[0][1]


def splits(subject: Subject) -> None:
    """Those for training and validation, where declared, are there; each has images, and labels of a declared kind."""
    opened = dict(subject.kit.splits(subject))
    for split in ("train", "val"):
        if split in subject.cls.splits and split not in opened:
            expect(False, f"its `splits` declare {split!r}, which cannot be opened: {_refusal(subject, split)}")
    for split, dataset in subject.kit.splits(subject):
        expect(len(dataset) > 0, f"{split} has no images")
        speaks = targets_of(subject.cls)
        expect(
            dataset.info.target in speaks,
            f"{split}: its info has targets of kind {dataset.info.target!r}, the class says {speaks}",
        )


def samples(subject: Subject) -> None:
    """Images are uint8 (3, H, W), no larger than the original's size, and each has an id."""
    for split, sample in _each(subject):
        of, image = f"{split}[{sample.index}]", sample.image
        expect(
            isinstance(image, Tensor) and image.dtype == torch.uint8,
            f"{of}: expected a uint8 tensor, got {_what(image)}",
        )
        expect(image.ndim == 3 and image.shape[0] == 3, f"{of}: expected an image (3, H, W), got {tuple(image.shape)}")
        fits = image.shape[1] <= sample.size[0] and image.shape[2] <= sample.size[1]
        expect(fits, f"{of}: {tuple(image.shape[1:])} pixels, but an original (height, width) of {sample.size}")
        expect(
            isinstance(sample.id, str) and sample.id, f"{of}: expected an id that people recognise, got {sample.id!r}"
        )


def positions(subject: Subject) -> None:
    """`index` of a sample is its position, and no two samples have one id."""
    for split, dataset in subject.kit.splits(subject):
        seen: dict[str, int] = {}
        for place in _places(dataset):
            sample = dataset[place]
            expect(sample.index == place, f"{split}[{place}] says that its index is {sample.index}")
            other = seen.setdefault(sample.id, place)
            expect(other == place, f"{split}[{place}] and [{other}] both have the id {sample.id!r}")


def labels_within_info(subject: Subject) -> None:
    """Labels are such as `info` describes: of its classes, in the right form, boxes inside their image."""
    infos = dict(subject.kit.splits(subject))
    for split, sample in _each(subject):
        expect(
            isinstance(sample.target, dict), f"{split}[{sample.index}]: expected labels by name, got {sample.target!r}"
        )
        check_target(sample, infos[split].info)


def ends_with_index_error(subject: Subject) -> None:
    """Past the end it raises IndexError, so that a loop over it ends."""
    for split, dataset in subject.kit.splits(subject):
        try:
            dataset[len(dataset)]
        except IndexError:
            continue
        expect(False, f"{split} has {len(dataset)} images, but gives number {len(dataset)} too")


def picklable(subject: Subject) -> None:
    """It can be pickled, as loader processes need on most systems, and the copy gives the same samples."""
    for split, dataset in subject.kit.splits(subject):
        other = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - what was pickled a moment ago
        expect(len(other) == len(dataset), f"{split}: {len(dataset)} images, its copy has {len(other)}")
        for place in _places(dataset):
            _check_same(f"{split}[{place}] of the copy", other[place], dataset[place])


def workers(subject: Subject) -> None:
    """A loader's process gives the same samples as the main one."""
    split, dataset = subject.kit.splits(subject)[0]
    places = _places(dataset)
    # Processes are slow to start: one split will do.
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, sampler=places, num_workers=1)
    with warnings.catch_warnings():
        # Python's, of forking a process that has threads, which torch's loaders do.
        warnings.filterwarnings("ignore", "This process", DeprecationWarning)
        loaded = list(loader)
    for place, sample in zip(places, loaded, strict=True):
        _check_same(f"{split}[{place}] of a loader's process", sample, dataset[place])


def labels_by_id(subject: Subject) -> None:
    """`target_of`, where there is one, knows the labels of its own images, and says of others that nothing is known."""
    if not hasattr(subject.cls, "target_of"):
        raise Skip("it has no target_of, so it cannot label the images of another task")
    split, dataset = subject.kit.splits(subject)[0]
    for place in _places(dataset):
        sample = dataset[place]
        _check_same_target(f"target_of({sample.id!r}) in {split}", dataset.target_of(sample.id), sample.target)
    strange, known = dataset.target_of("no such image"), dataset.target_of(dataset[0].id)
    shapes = [{name: tuple(value.shape) for name, value in target.items()} for target in (strange, known)]
    expect(shapes[0] == shapes[1], f"target_of an unknown id has shapes {shapes[0]}, of a known one {shapes[1]}")


def order(subject: Subject) -> None:
    """`order`, where there is one, gives as many positions as there are images, the same ones for one generator."""
    if not hasattr(subject.cls, "order"):
        raise Skip("it has no order; images come shuffled")
    _, dataset = subject.kit.splits(subject)[0]
    first, second = (np.asarray(dataset.order(np.random.default_rng(0))) for _ in range(2))
    expect(first.shape == (len(dataset),), f"expected {len(dataset)} positions, got an array of shape {first.shape}")
    inside = np.issubdtype(first.dtype, np.integer) and ((first >= 0) & (first < len(dataset))).all()
    expect(inside, f"expected positions of 0 to {len(dataset) - 1}, got {first.min()} to {first.max()}")
    expect((first == second).all(), "it differs with the same generator, so that a training could not be resumed")


def _refusal(subject: Subject, split: str) -> RecipeError | None:
    try:
        subject.build(split=split)
    except RecipeError as error:
        return error
    return None


def _places(dataset: Any) -> list[int]:
    """Positions from all over it."""
    return sorted({int(place) for place in np.linspace(0, len(dataset) - 1, _SAMPLES)})


def _each(subject: Subject) -> Iterator[tuple[str, Sample]]:
    for split, dataset in subject.kit.splits(subject):
        for place in _places(dataset):
            yield split, dataset[place]


def _what(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _check_same(of: str, sample: Sample, wanted: Sample) -> None:
    expect(torch.equal(sample.image, wanted.image), f"{of} has another image")
    expect(
        (sample.size, sample.index, sample.id) == (wanted.size, wanted.index, wanted.id),
        f"{of} has another size, index or id",
    )
    expect(set(sample.target) == set(wanted.target), f"{of} has labels {set(sample.target)}, not {set(wanted.target)}")
    _check_same_target(of, sample.target, wanted.target)


def _check_same_target(of: str, target: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name in set(target) & set(wanted):
        same = torch.equal(target[name].nan_to_num(), wanted[name].nan_to_num())
        expect(same, f"{of}: {name} is {target[name].tolist()}, not {wanted[name].tolist()}")


CHECKS = checks(
    splits, samples, positions, labels_within_info, ends_with_index_error, picklable, workers, labels_by_id, order
)
