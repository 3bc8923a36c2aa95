"""Evaluation's batches: a split in order, each image once, read for all tasks that have labels of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mtframe.errors import BadImageError, MtframeError
from mtframe.kinds import LabelsImages, Samples, Transform

from ._loader import load
from ._placement import Inputs
from ._sample import Batch, Sample
from ._viewers import fitting, make_inputs


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
        self._places = {
            other: {id: place for place, id in enumerate(split.ids())} for other, split in self.others.items()
        }

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __getitem__(self, number: int) -> Batch | list[str] | MtframeError:
        """Batch `number`, or the skipped images alone where none could be read."""
        samples, skipped = list[Sample](), list[str]()
        try:
            for index in range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.dataset))):
                try:
                    samples.append(self.dataset[index])
                except BadImageError as error:
                    skipped.append(str(error))
            samples, inputs, unfit = inputs_of(self.transform, samples, number)
            skipped += unfit
            if inputs is None:
                return skipped
            by_task: dict[str, list[Sample | None]] = {self.task: [sample.without_image() for sample in samples]}
            for other in self.others:
                by_task[other] = [self._sample_of(other, sample) for sample in samples]
        except MtframeError as error:
            return error
        return evaluation_batch(inputs, by_task, skipped)

    def batches(self, workers: int, pin_memory: bool = False) -> Iterator[Batch | list[str]]:
        """All batches, prefetched by worker processes."""
        return load(self, range(len(self)), workers, pin_memory)

    def _sample_of(self, task: str, sample: Sample) -> Sample | None:
        """What another task's split says of the image, at its own position; None if it does not have it."""
        place = self._places[task].get(sample.id)
        if place is None:
            return None
        target = self.others[task].target_of(sample.id, sample.size)
        return Sample(torch.empty(0, dtype=torch.uint8), target, sample.size, place, sample.id)


def inputs_of(
    transform: Transform, samples: Sequence[Sample], seed: int
) -> tuple[list[Sample], Inputs | None, list[str]]:
    """The samples that a transform takes, its inputs of these (None of none), and what it says of the others."""
    try:
        inputs = make_inputs(transform, samples, np.random.default_rng(seed)) if samples else None
        return list(samples), inputs, []
    except BadImageError:
        fit, unfit = fitting(transform, samples)
        inputs = make_inputs(transform, fit, np.random.default_rng(seed)) if fit else None
        return fit, inputs, unfit


def evaluation_batch(inputs: Inputs, samples: dict[str, list[Sample | None]], skipped: Sequence[str] = ()) -> Batch:
    """Inputs that are made of one image each, with where it lies in them."""
    placements = [its[0] for its in inputs.placements]
    return Batch(inputs.images, placements=placements, samples=samples, skipped=list(skipped))
