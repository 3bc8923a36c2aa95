"""The mixing loader: every training step's batches of all tasks, as a pure function of the step.

Which images a step sees, and how they are augmented, depends on nothing but the seed and the step's number: not on
workers, not on what was loaded before. A run that was killed resumes exactly by asking for the next step.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from mtframe.errors import BadImageError, DataError, MtframeError, StarvedError, described, is_memory_short
from mtframe.kinds import Dataset, FollowsProgress, OrdersEpochs, Schedule, Transform
from mtframe.schedule import Joint, turns

from ._packing import Packed, packed
from ._placement import Inputs
from ._sample import Batch, Sample
from ._viewers import Viewer, fitting, make_inputs

# Of <sys/prctl.h>: the signal that a process gets when what started it ends.
_PR_SET_PDEATHSIG = 1

# Tried in place of one unreadable image before giving up: more in a row is no stray file.
_MAX_REPLACEMENTS = 20

# Seconds after which workers that do not answer are given up, and from one look at whether they live to the next.
PATIENCE, _POLL = 600, 5


@dataclass
class Source:
    """One task's training data.

    Attributes:
        dataset: Its images and labels.
        transform: What makes batches of them.
        batch_size: Images in a batch.
        viewers: The tasks that train on these images, first the one whose data set it is, if that trains at all.
        every: It takes part in every k-th step, with a schedule that asks for that.
    """

    dataset: Dataset
    transform: Transform
    batch_size: int
    viewers: dict[str, Viewer] = field(default_factory=dict)
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
        schedule: Makes the schedule, from the number of batches that show all images of a task once, and its `every`,
            each by task.

    Raises:
        DataError: A data set is empty.

    Attributes:
        schedule: Which task trains when.
        steps: How many steps the whole training has, for transforms that follow its progress; None where nobody knows,
            and every step is as the first.
    """

    def __init__(
        self,
        sources: dict[str, Source],
        seed: int,
        schedule: Callable[[Mapping[str, int], Mapping[str, int]], Schedule] = Joint,
    ) -> None:
        for task, source in sources.items():
            if len(source.dataset) == 0:
                raise DataError(f"tasks.{task}.dataset: the training split has no images")
        self.sources = sources
        self.seed = seed
        self.steps: int | None = None
        self.schedule = schedule(
            {task: source.batches_per_epoch for task, source in sources.items()},
            {task: source.every for task, source in sources.items()},
        )

    def __getitem__(self, step: int) -> dict[str, Batch]:
        progress = step / self.steps if self.steps else 0.0
        return {task: self._batch(task, number, progress) for task, number in self.at(step).items()}

    def at(self, step: int) -> dict[str, int]:
        """The tasks whose images a step sees, in the order of the sources, each with the number of its batch."""
        found = turns(self.schedule, step)
        return {task: found[task] for task in self.sources if task in found}

    def batches(self, start: int, stop: int, workers: int, pin_memory: bool = False) -> Iterator[dict[str, Batch]]:
        """The batches of steps `start` to `stop` (exclusive), prefetched by worker processes."""
        return load(self, range(start, stop), workers, pin_memory)

    def epochs(self, steps: int) -> dict[str, float]:
        """By task, how often the first `steps` steps show each of its training images, on average."""
        seen = {}
        for task, draws in self.schedule.draws(steps).items():
            source = self.sources[task]
            for viewer in {task: None, **source.viewers}:
                seen[viewer] = draws * source.batch_size / len(source.dataset)
        return seen

    def inputs(self, task: str, number: int, progress: float = 0.0) -> tuple[list[Sample], Inputs, list[str]]:
        """Batch `number` of one source: the samples, what its transform makes of them, and what could not be read.

        Args:
            task: The source's task.
            number: Of the batch.
            progress: How much of the training is done, from 0 to below 1.

        Raises:
            DataError: Too many images in a row cannot be read.
            BadImageError: The transform can make nothing of any of them.
        """
        source = self.sources[task]
        transform = source.transform
        if isinstance(transform, FollowsProgress):
            # Each time: several processes ask for steps, each for those that it gets.
            transform.set_progress(progress)
        rng = np.random.default_rng([self.seed, zlib.crc32(task.encode()), number])
        samples, skipped = list[Sample](), list[str]()
        for draw in range(number * source.batch_size, (number + 1) * source.batch_size):
            sample, missed = self._draw(source, task, draw)
            samples.append(sample)
            skipped += missed
        try:
            return samples, make_inputs(transform, samples, rng), skipped
        except BadImageError:
            fit, unfit = fitting(samples, lambda one: make_inputs(transform, one, np.random.default_rng(0)))
            if not fit:
                raise
            # As many as before: others of the batch stand in.
            samples = [fit[place % len(fit)] for place in range(len(samples))]
            return samples, make_inputs(transform, samples, rng), [*skipped, *unfit]

    def _batch(self, task: str, number: int, progress: float) -> Batch:
        samples, inputs, skipped = self.inputs(task, number, progress)
        known = {}
        for name, viewer in self.sources[task].viewers.items():
            labels, unread = viewer.labels(samples)
            # Two tasks may have lost one file.
            skipped += [reason for reason in unread if reason not in skipped]
            if (targets := viewer.collated(labels, inputs)) is not None:
                known[name] = targets
        return Batch(inputs.images, known, skipped=skipped)

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
        order = source._order
        if order is None or order[0] != epoch:
            rng = np.random.default_rng([self.seed, zlib.crc32(task.encode()), epoch, 1])
            own = source.dataset.order(rng) if isinstance(source.dataset, OrdersEpochs) else None
            order = source._order = epoch, rng.permutation(len(source.dataset)) if own is None else own
        return int(order[1][position])


def load(dataset: Any, order: range, workers: int, pin_memory: bool) -> Iterator[Any]:
    """Items of a map-style data set in order; an item that is an error is raised here."""
    loader: DataLoader[Any] = DataLoader(
        _Items(dataset, packs=workers > 0),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        timeout=_POLL if workers else 0,
        worker_init_fn=_leave_signals_to_the_main_process if workers else None,
    )
    for answer in _answers(loader, workers):
        item = answer.opened() if isinstance(answer, Packed) else answer
        if isinstance(item, MtframeError):
            raise item
        yield item


class _Items(torch.utils.data.Dataset[Any]):
    """A data set whose errors are items, where they say what a user can act on.

    A DataLoader would turn them into text with a worker's traceback.

    Args:
        dataset: The data set.
        packs: Whether items leave their process.
    """

    def __init__(self, dataset: Any, *, packs: bool) -> None:
        self.dataset = dataset
        self.packs = packs

    def __getitem__(self, number: int) -> Any:
        try:
            item = self.dataset[number]
            return packed(item) if self.packs else item
        except MtframeError as error:
            return error
        except (MemoryError, RuntimeError, OSError) as error:
            return starved(error)


def starved(error: MemoryError | RuntimeError | OSError) -> StarvedError:
    """What to say where memory, or the system, did not suffice to read images. Raises any other error again."""
    if is_memory_short(error):
        return StarvedError(
            f"out of memory while reading images ({described(error)}). Lower train.workers, batch sizes or sizes"
        )
    if isinstance(error, OSError):
        return StarvedError(
            f"images cannot be read any more ({described(error)}). A disk or network may be gone, or too many files be "
            "open (ulimit -n)"
        )
    raise error


def _answers(loader: DataLoader[Any], workers: int) -> Iterator[Any]:
    """What a loader gives. Raises StarvedError where a worker is gone, or none answers for too long."""
    iterator = iterate_quietly(loader)
    waited = 0
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            said = str(error).partition("\n")[0].rstrip(".")
            if said.startswith("DataLoader timed out"):
                # Nothing is lost: the same item is waited for again.
                waited += _POLL
                if waited < PATIENCE:
                    continue
                raise StarvedError(
                    f"the {workers} processes that read images have not answered for {waited} s. A disk or network may "
                    "be gone, or what they do be stuck"
                ) from None
            if not said.startswith("DataLoader worker"):
                raise
            raise StarvedError(
                f"a process that reads images is gone ({said}). If memory is short, lower train.workers or batch sizes"
            ) from None
        except (OSError, EOFError) as error:
            # An OSError of a data set comes as an item: this is the pipe to a worker that was killed on the way, or an
            # EOFError that the data set raised, which is a bug of it.
            if not workers or "in DataLoader worker process" in str(error):
                raise
            raise StarvedError(
                f"a process that reads images is gone ({described(error)}). If memory is short, lower train.workers or "
                "batch sizes"
            ) from None
        waited = 0
        yield item


def iterate_quietly(loader: DataLoader[Any]) -> Iterator[Any]:
    """Starts a loader's workers, whose death torch would otherwise raise from a signal, wherever this process is."""
    known = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    before = signal.getsignal(signal.SIGCHLD) if known else None
    iterator = iter(loader)
    if known:
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)
    return iterator


def _leave_signals_to_the_main_process(worker: int) -> None:
    # Ctrl-C in a terminal, `timeout` and job schedulers signal every process of the group: the main one still needs
    # batches to end in order, and ends its workers itself, with SIGTERM.
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    if sys.platform == "linux":
        # Nor does one outlive it: what hangs in a read would never notice.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
