"""The mixing loader: every training step's batches of all tasks, as a pure function of the step.

Which images a step sees, and how they are augmented, depends on nothing but the seed and the step's number: not on
workers, not on what was loaded before. A run that was killed goes on exactly by asking for the next step.
"""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mtframe.errors import BadImageError, DataError, MtframeError
from mtframe.kinds import Dataset, Transform

from ._sample import Batch, Sample
from ._schedule import SCHEDULES

# Tried in place of one unreadable image before giving up: more in a row is no stray file.
_MAX_REPLACEMENTS = 20


@dataclass
class Source:
    """One task's training data.

    Attributes:
        dataset: Its images and labels.
        transform: What makes batches of them.
        batch_size: Images in a batch.
        labellers: Data sets of further tasks that use the same images, by task.
        every: In which of the joint steps it takes part: every so manyth.
    """

    dataset: Dataset
    transform: Transform
    batch_size: int
    labellers: dict[str, Dataset] = field(default_factory=dict)
    every: int = 1
    _order: tuple[int, np.ndarray] | None = field(default=None, repr=False)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that show every image once."""
        return -(-len(self.dataset) // self.batch_size)


class MixedBatches(torch.utils.data.Dataset[Any]):
    """Item `step` is that step's batch of every task that trains in it.

    Each task goes through permutations of its own data, one after the other: epochs of unequal length need not
    meet, and a batch may span two of them.

    Args:
        sources: Training data by task.
        seed: Of order and augmentation.
        schedule: Which task trains when (`train.schedule` of a recipe).
        temperature: Of the schedule `temperature`.

    Raises:
        DataError: A data set is empty.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        seed: int,
        schedule: str = "joint",
        *,
        temperature: float | None = None,
    ) -> None:
        for task, source in sources.items():
            if len(source.dataset) == 0:
                raise DataError(f"tasks.{task}.dataset: the training split has no images")
        self.sources = sources
        self.seed = seed
        lengths = {task: source.batches_per_epoch for task, source in sources.items()}
        options: dict[str, Any] = {
            "joint": {"every": {task: source.every for task, source in sources.items()}},
            "temperature": {"temperature": temperature},
        }
        self.schedule = SCHEDULES[schedule](lengths, **options.get(schedule, {}))

    def __getitem__(self, step: int) -> dict[str, Batch] | MtframeError:
        # An error is returned, not raised: a DataLoader would turn it into text with a worker's traceback.
        try:
            return {task: self._batch(task, number) for task, number in self.schedule.at(step).items()}
        except MtframeError as error:
            return error

    def batches(self, start: int, stop: int, workers: int, pin_memory: bool = False) -> Iterator[dict[str, Batch]]:
        """The batches of steps `start` to `stop` (exclusive), prefetched by worker processes."""
        return load(self, range(start, stop), workers, pin_memory)

    def epochs(self, steps: int) -> dict[str, float]:
        """By task, how often the first `steps` steps show each of its training images, in the mean."""
        seen = {}
        for task, draws in self.schedule.draws(steps).items():
            source = self.sources[task]
            for viewer in (task, *source.labellers):
                seen[viewer] = draws * source.batch_size / len(source.dataset)
        return seen

    def _batch(self, task: str, number: int) -> Batch:
        source = self.sources[task]
        rng = np.random.default_rng([self.seed, zlib.crc32(task.encode()), number])
        samples, skipped = [], []
        for draw in range(number * source.batch_size, (number + 1) * source.batch_size):
            sample, missed = self._draw(source, task, draw)
            samples.append(sample)
            skipped += missed
        try:
            batch = transform_batch(source.transform, samples, rng)
        except BadImageError:
            fit, unfit = _fitting(source.transform, samples)
            if not fit:
                raise
            skipped += unfit
            # As many as ever: others of the batch stand in.
            samples = [fit[place % len(fit)] for place in range(len(samples))]
            batch = transform_batch(source.transform, samples, rng)
        batch.skipped = skipped
        batch.also = {other: _labels(dataset, samples) for other, dataset in source.labellers.items()}
        return batch

    def _draw(self, source: Source, task: str, draw: int) -> tuple[Sample, list[str]]:
        skipped: list[str] = []
        for attempt in range(_MAX_REPLACEMENTS):
            try:
                return source.dataset[self._index(source, task, draw + attempt)], skipped
            except BadImageError as error:
                skipped.append(str(error))
        raise DataError(
            f"tasks.{task}.dataset: {len(skipped)} images in a row cannot be read, beginning with\n  "
            + "\n  ".join(skipped[:3])
        )

    def _index(self, source: Source, task: str, draw: int) -> int:
        epoch, position = divmod(draw, len(source.dataset))
        if source._order is None or source._order[0] != epoch:
            rng = np.random.default_rng([self.seed, zlib.crc32(task.encode()), epoch, 1])
            order = getattr(source.dataset, "order", None)
            source._order = (epoch, order(rng) if order else rng.permutation(len(source.dataset)))
        return int(source._order[1][position])


class SplitBatches(torch.utils.data.Dataset[Any]):
    """A split in order, in batches, each image once; unreadable images are left out and named in `skipped`."""

    def __init__(self, dataset: Dataset, transform: Transform, batch_size: int) -> None:
        self.dataset = dataset
        self.transform = transform
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __getitem__(self, number: int) -> Batch | list[str] | MtframeError:
        """Batch `number`, or the skipped images alone where none could be read."""
        samples, skipped = [], []
        try:
            for index in range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.dataset))):
                try:
                    samples.append(self.dataset[index])
                except BadImageError as error:
                    skipped.append(str(error))
            try:
                batch = transform_batch(self.transform, samples, np.random.default_rng(number)) if samples else None
            except BadImageError:
                samples, unfit = _fitting(self.transform, samples)
                skipped += unfit
                batch = transform_batch(self.transform, samples, np.random.default_rng(number)) if samples else None
        except MtframeError as error:
            return error
        if batch is None:
            return skipped
        batch.skipped = skipped
        return batch

    def batches(self, workers: int, pin_memory: bool = False) -> Iterator[Batch | list[str]]:
        """All batches, prefetched by worker processes."""
        return load(self, range(len(self)), workers, pin_memory)


def _fitting(transform: Transform, samples: list[Sample]) -> tuple[list[Sample], list[str]]:
    """The samples that a transform can make something of, and what it says of the others (no face on it)."""
    fit, unfit = [], []
    for sample in samples:
        try:
            transform_batch(transform, [sample], np.random.default_rng(0))
        except BadImageError as error:
            unfit.append(str(error))
        else:
            fit.append(sample)
    return fit, unfit


def _labels(dataset: Any, samples: list[Sample]) -> dict[str, Tensor]:
    """What a data set knows of images that another one read, (B, ...) by name."""
    targets = [dataset.target_of(sample.id) for sample in samples]
    return {name: torch.stack([target[name] for target in targets]) for name in targets[0]}


def transform_batch(transform: Transform, samples: list[Sample], rng: np.random.Generator) -> Batch:
    """Calls a transform with both generators seeded, leaving torch's global one as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        return transform(samples, rng)


def load(dataset: Any, order: range, workers: int, pin_memory: bool) -> Iterator[Any]:
    """Items of a map-style data set in order; an item that is an error is raised here."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals_to_the_main_process if workers else None,
    )
    try:
        for item in loader:
            if isinstance(item, MtframeError):
                raise item
            yield item
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        said = str(error).partition("\n")[0].rstrip(".")
        raise ChildProcessError(
            f"a process that reads images is gone ({said}). If memory is short, lower train.workers or batch sizes"
        ) from error


def _leave_signals_to_the_main_process(worker: int) -> None:
    # Ctrl-C in a terminal, `timeout` and job schedulers signal every process of the group: the main one still needs
    # batches to end in order, and ends its workers itself, with SIGTERM.
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
