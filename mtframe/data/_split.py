"""Evaluation's batches: a split in order, each image once, read for all tasks that have labels of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from mtframe.errors import BadImageError, DataError
from mtframe.kinds import LabelsImages, Samples, Transform

from ._loader import load
from ._placement import Inputs
from ._sample import Batch, Sample
from ._viewers import exact_inputs, fitting


class SplitBatches(torch.utils.data.Dataset[Any]):
    """A split in order, in batches, each image once; unreadable images are left out and named in `skipped`.

    Args:
        task: The task whose split it is.
        dataset: The split.
        transform: Without augmentation.
        batch_size: Images in a batch.
        others: By task, splits of the same images or of a part of them, which are not read again.
    """

    def __init__(
        self,
        task: str,
        dataset: Samples,
        transform: Transform,
        batch_size: int,
        others: Mapping[str, LabelsImages] | None = None,
    ) -> None:
        self.task = task
        self.dataset = dataset
        self.transform = transform
        self.batch_size = batch_size
        self.others = dict(others or {})
        self._ids = dataset.ids() if self.others and isinstance(dataset, LabelsImages) else ()
        self._places = {
            other: {id: place for place, id in enumerate(split.ids())} for other, split in self.others.items()
        }

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`; of no image where none of its images could be read."""
        read, skipped = dict[int, Sample](), dict[int, str]()
        for index in range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.dataset))):
            try:
                read[index] = self.dataset[index]
            except BadImageError as error:
                skipped[index] = str(error)
        samples, inputs, unfit = inputs_of(self.transform, list(read.values()))
        left = [index for index, sample in read.items() if not any(sample is taken for taken in samples)]
        skipped |= dict(zip(left, unfit, strict=True))
        by_task: dict[str, list[Sample | None]] = {self.task: [sample.without_image() for sample in samples]}
        unread: dict[str, list[str]] = {other: [] for other in self.others}
        for other in self.others:
            by_task[other] = [self._sample_of(other, sample, unread[other]) for sample in samples]
        batch = evaluation_batch(inputs or Inputs(torch.empty(0, 3, 0, 0, dtype=torch.uint8), ()), by_task)
        batch.skipped = list(skipped.values())
        batch.skipped_too = {
            other: [*(reason for index, reason in skipped.items() if self._ids[index] in places), *unread[other]]
            for other, places in self._places.items()
        }
        return batch

    def batches(self, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
        """All batches, prefetched by worker processes."""
        return load(self, range(len(self)), workers, pin_memory)

    def _sample_of(self, task: str, sample: Sample, unread: list[str]) -> Sample | None:
        """What another task's split says of the image, at its own position; None if it does not have it.

        Also None where its label cannot be read, which is added to `unread`.
        """
        place = self._places[task].get(sample.id)
        if place is None:
            return None
        try:
            target = self.others[task].target_of(sample.id, sample.size)
        except DataError as error:
            unread.append(str(error))
            return None
        return Sample(torch.empty(0, dtype=torch.uint8), target, sample.size, place, sample.id)


def inputs_of(transform: Transform, samples: Sequence[Sample]) -> tuple[list[Sample], Inputs | None, list[str]]:
    """The samples that a transform takes, its inputs of these (None of none), and what it says of the others."""
    try:
        inputs = exact_inputs(transform, samples) if samples else None
        return list(samples), inputs, []
    except BadImageError:
        fit, unfit = fitting(samples, lambda one: exact_inputs(transform, one))
        inputs = exact_inputs(transform, fit) if fit else None
        return fit, inputs, unfit


def evaluation_batch(inputs: Inputs, samples: dict[str, list[Sample | None]]) -> Batch:
    """Inputs that are made of one image each, with where it lies in them."""
    return Batch(inputs.images, placements=[its[0] for its in inputs.placements], samples=samples)
