"""How often training shows each task's images: told before it begins, and again when it is over."""

from __future__ import annotations

from mtframe.data import MixedBatches

from ._log import LOG

# From this factor between two tasks on, a warning says what shows them more alike.
_UNEVEN = 10.0

# What shows one task less, or another one more often, by schedule; how often follows from the lengths with the others.
_REMEDIES = {
    "joint": "train.schedule=proportional shows all equally often, temperature is between; or give {often} a smaller "
    "batch_size or every=N",
    "round-robin": "train.schedule=proportional shows all equally often, temperature is between; or give {often} a "
    "smaller batch_size",
    "temperature": "a train.temperature nearer to 1 shows them more alike",
}


def announce(batches: MixedBatches, steps: int, schedule: str) -> None:
    """Logs how often all training will show each image, and warns of tasks that it shows too little or unevenly.

    Args:
        batches: The training data.
        steps: Batches of the whole training.
        schedule: Name of the schedule.
    """
    seen = batches.epochs(steps)
    sizes = {task: len(source.dataset) for task, source in batches.sources.items()}
    for task, size in sizes.items():
        LOG.info("task %s: %d training images, each will be seen %s times", task, size, times(seen[task]))
    for task in (task for task in sizes if seen[task] < 1):
        part = "it never trains" if seen[task] == 0 else f"only {seen[task]:.1%} of its {sizes[task]} images are seen"
        LOG.warning("task %s: %s in this training; train longer (train.steps or train.epochs), %s", task, part,
                    "or choose another train.schedule or a larger batch_size for it")  # fmt: skip
    often, seldom = max(sizes, key=seen.__getitem__), min(sizes, key=seen.__getitem__)
    if schedule in _REMEDIES and seen[often] > _UNEVEN * seen[seldom] > 0:
        LOG.warning("the images of task %s are seen %s times, those of task %s %s times. If that is not meant: %s",
                    often, times(seen[often]), seldom, times(seen[seldom]),
                    _REMEDIES[schedule].format(often=often))  # fmt: skip


def account(batches: MixedBatches, steps: int) -> None:
    """Logs how often the steps that were done have shown each image."""
    for task, seen in batches.epochs(steps).items():
        if task in batches.sources:
            size = len(batches.sources[task].dataset)
            LOG.info("task %s: %d training images, each seen %s times", task, size, times(seen))


def times(number: float) -> str:
    """A number of times, with two digits that count where there are few."""
    return f"{number:.1f}" if number >= 1 or number == 0 else f"{number:.2g}"
