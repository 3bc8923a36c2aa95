"""Checks of data sets."""

# Shapes: H height, W width.

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mtframe import options
from mtframe._fit import splits_of, targets_of
from mtframe.data import Placement, Sample, iterate_quietly
from mtframe.errors import PluginError, RecipeError
from mtframe.files import write_text
from mtframe.kinds import (
    ChecksForm,
    InspectsFiles,
    KeepsFiles,
    LabelsImages,
    OrdersEpochs,
    ReadsLabels,
    Recognises,
    ReportsOmissions,
    Target,
)

from ._check import checks
from ._companions import target_of
from ._form import check_findings, check_label
from ._subject import SIZE, can
from ._violation import Skip, Violation, expect

if TYPE_CHECKING:
    from ._subject import Subject

# How many samples of a split are checked, from all over it.
_SAMPLES = 12


def open_splits(subject: Subject) -> list[tuple[str, Any]]:
    """The splits that there are, that for training first; data need not have all that its format knows.

    Raises:
        Exception: What the data set raises of the first split, where there is none; of any split, unless it says by a
            RecipeError that it has none.
    """
    found, absent = [], list[RecipeError]()
    for split in sorted(_declared(subject), key=lambda name: name != "train"):
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
    """Those for training and validation, where declared, are there; each has images, and labels of a kind there is."""
    opened = dict(subject.kit.splits(subject))
    for split in ("train", "val"):
        if split in _declared(subject) and split not in opened:
            expect(False, f"its `splits` declare {split!r}, which cannot be opened: {_refusal(subject, split)}")
    for split, dataset in subject.kit.splits(subject):
        expect(len(dataset) > 0, f"{split} has no images")
        speaks = targets_of(subject.cls)
        expect(
            dataset.info.target in speaks,
            f"{split}: its info has targets of kind {dataset.info.target!r}, the class says {speaks}",
        )
        # An error of its own that says what there is.
        target_of(dataset.info)


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


def labels(subject: Subject) -> None:
    """Labels have the form that their kind of target documents, and make a batch."""
    for split, dataset in subject.kit.splits(subject):
        target, given = _target(dataset), [dataset[place] for place in _places(dataset)]
        for sample in given:
            of, label = f"{split}[{sample.index}]", sample.target
            expect(isinstance(label, dict), f"{of}: expected labels by name, got {label!r}")
            check_label(of, target, label, sample.size)
        known = target.known(target.collate([_placed(target, sample.target, sample.size) for sample in given]))
        # Where nothing is known nothing is trained.
        expect(split != "train" or known.any(), f"{split}: nothing is known of {len(given)} images")
    if not isinstance(target, ChecksForm):
        raise Skip("they make a batch; whether they have the right form their kind of target does not say (ChecksForm)")


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
        loaded = list(iterate_quietly(loader))
    for place, sample in zip(places, loaded, strict=True):
        _check_same(f"{split}[{place}] of a loader's process", sample, dataset[place])


def labels_by_id(subject: Subject) -> None:
    """`ids` and `target_of`, where there are any, know its own images' labels, and nothing of another image."""
    split, dataset = subject.kit.splits(subject)[0]
    if not can(dataset, LabelsImages):
        raise Skip("it has no ids and target_of, so it cannot label the images of another task")
    ids, target = list(dataset.ids()), _target(dataset)
    expect(len(ids) == len(dataset), f"{split} has {len(dataset)} images, but {len(ids)} ids")
    for place in _places(dataset):
        sample = dataset[place]
        expect(ids[place] == sample.id, f"ids() has {ids[place]!r} for {split}[{place}], which is {sample.id!r}")
        own = dataset.target_of(sample.id, sample.size)
        _check_same_target(f"target_of({sample.id!r}) in {split}", own, sample.target)
    strange = dataset.target_of("no such image", sample.size)
    known = target.known(target.collate([_placed(target, label, sample.size) for label in (strange, sample.target)]))
    expect(not known[0], f"target_of an image that it does not have says something: {_shown(strange)}")


def order(subject: Subject) -> None:
    """`order`, where there is one, gives as many positions as there are images, the same ones for one generator."""
    _, dataset = subject.kit.splits(subject)[0]
    if not can(dataset, OrdersEpochs):
        raise Skip("it has no order; images come shuffled")
    first, second = (np.asarray(dataset.order(np.random.default_rng(0))) for _ in range(2))
    expect(first.shape == (len(dataset),), f"expected {len(dataset)} positions, got an array of shape {first.shape}")
    inside = np.issubdtype(first.dtype, np.integer) and ((first >= 0) & (first < len(dataset))).all()
    expect(inside, f"expected positions of 0 to {len(dataset) - 1}, got {first.min()} to {first.max()}")
    expect((first == second).all(), "it differs with the same generator, so that a training could not be resumed")


def recognised(subject: Subject) -> None:
    """`recognises`, where there is one, knows its own files, and neither an empty folder nor one that is not there."""
    if not can(subject.cls, Recognises):
        raise Skip("it has no recognises, so -t NAME=PRESET:ROOT must name it")
    if "root" not in subject.options:
        raise Skip("it is not given a root")
    found = subject.cls.recognises(Path(subject.options["root"]))
    expect(isinstance(found, Mapping), f"expected options of its own files in {subject.options['root']}, got {found!r}")
    plain = {**subject.options, **found}
    options.check(subject.cls, subject.kind, plain, f"{subject}, as it recognises them")
    with TemporaryDirectory() as empty:
        for place in (Path(empty), Path(empty) / "missing", _text_file(Path(empty))):
            strange = subject.cls.recognises(place)
            expect(strange is None, f"it takes '{place.name}', in which nothing of it is, for its own: {strange!r}")


def omissions(subject: Subject) -> None:
    """`omitted`, where there is one, counts by reasons in words."""
    for split, dataset in subject.kit.splits(subject):
        if not can(dataset, ReportsOmissions):
            raise Skip("it has no omitted, so nobody learns how many it leaves out")
        omitted = dataset.omitted
        expect(isinstance(omitted, Mapping), f"{split}: expected counts by reason, got {omitted!r}")
        for reason, count in omitted.items():
            expect(isinstance(reason, str) and bool(reason), f"{split}: expected a reason in words, got {reason!r}")
            expect(isinstance(count, int) and count >= 0, f"{split}: {reason}: expected a count, got {count!r}")


def annotated(subject: Subject) -> None:
    """`annotated`, where there is one, gives each sample's own label, id and index, and its size or (0, 0)."""
    for split, dataset in subject.kit.splits(subject):
        if not can(dataset, ReadsLabels):
            raise Skip("it has no annotated, so its labels are not looked at before a training")
        for place in _places(dataset):
            of, found, sample = f"annotated({place}) of {split}", dataset.annotated(place), dataset[place]
            expect((found.id, found.index) == (sample.id, place), f"{of} has id {found.id!r} and index {found.index}")
            sizes = (sample.size, (0, 0))
            expect(found.size in sizes, f"{of}: expected size {sample.size}, or (0, 0), got {found.size}")
            _check_same_target(of, found.target, sample.target)


def image_files(subject: Subject) -> None:
    """`root`, where it says where images are, is the folder in which each lies at the path that is its id."""
    for split, dataset in subject.kit.splits(subject):
        if not can(dataset, KeepsFiles) or not can(dataset, LabelsImages):
            raise Skip("it has no root and ids, so images in two splits and missing ones go unnoticed")
        ids = list(dataset.ids())
        for place in _places(dataset):
            path = Path(dataset.root) / ids[place]
            expect(path.is_file(), f"{split}[{place}]: no file '{path}', which its root and id stand for")


def findings(subject: Subject) -> None:
    """`inspect`, where there is one, gives findings, each of a name that is in `findings`."""
    for split, dataset in subject.kit.splits(subject):
        if not can(dataset, InspectsFiles):
            raise Skip("it has no inspect and findings, so it finds nothing odd about its files")
        check_findings(split, dataset.findings, dataset.inspect())


def _text_file(folder: Path) -> Path:
    path = folder / "readme.txt"
    write_text(path, "nothing\n")
    return path


def _declared(subject: Subject) -> tuple[str, ...]:
    try:
        return splits_of(subject.cls)
    except PluginError as error:
        raise Violation(str(error)) from error


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


def _target(dataset: Any) -> Target:
    try:
        return target_of(dataset.info)
    except PluginError as error:
        raise Skip(f"there is no kind of target {dataset.info.target!r}; see the check splits") from error


def _placed(target: Target, label: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """The label as it is in an input of the size that all of a batch have, over which its image is stretched."""
    scale = SIZE / size[1], SIZE / size[0]
    return target.placed([(label, Placement.scaled(size, (SIZE, SIZE), scale))])


def _check_same(of: str, sample: Sample, wanted: Sample) -> None:
    expect(torch.equal(sample.image, wanted.image), f"{of} has another image")
    expect(
        (sample.size, sample.index, sample.id) == (wanted.size, wanted.index, wanted.id),
        f"{of} has another size, index or id",
    )
    _check_same_target(of, sample.target, wanted.target)


def _check_same_target(of: str, target: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    expect(set(target) == set(wanted), f"{of}: it has {_names(target)}, not {_names(wanted)}")
    for name in target:
        same = torch.equal(target[name].nan_to_num(), wanted[name].nan_to_num())
        expect(same, f"{of}: {name} is {target[name].tolist()}, not {wanted[name].tolist()}")


def _names(target: dict[str, Tensor]) -> str:
    return ", ".join(map(repr, target)) or "nothing"


def _shown(target: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {value.tolist()}" for name, value in target.items())


CHECKS = checks(
    splits,
    samples,
    positions,
    labels,
    ends_with_index_error,
    picklable,
    workers,
    labels_by_id,
    order,
    recognised,
    omissions,
    annotated,
    image_files,
    findings,
)
