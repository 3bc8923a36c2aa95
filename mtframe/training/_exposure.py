"""How often training shows each task's images: logged before it begins, and again when it is over."""

from __future__ import annotations

from mtframe.data import MixedBatches

from ._log import LOG

# From this factor between two tasks on, a caution says what evens it out.
_UNEVEN = 10

# What that is, by schedule. With `epochs` and `proportional` exposures are even, except at the end.
_REMEDIES = {
    "joint": "train.schedule=proportional shows all equally often, and temperature is between; so are a smaller "
    "tasks.{often}.batch_size and tasks.{often}.every=N",
    "round-robin": "train.schedule=proportional shows all equally often, and temperature is between; so is a smaller "
    "tasks.{often}.batch_size",
    "temperature": "a train.schedule.temperature nearer to 1 shows them more alike",
}

# A whole epoch shows every image, so that nothing but `train.steps` can be too short for that.
_MORE = "train.epochs=1 or more in place of train.steps shows each once, as may another train.schedule"


def cautions(batches: MixedBatches, steps: int, schedule: str) -> list[str]:
    """Tasks that training shows too little, or much more often than others, each with what changes it.

    Args:
        batches: The training data.
        steps: Batches of the whole training.
        schedule: Name of the schedule.
    """
    seen = {task: number for task, number in batches.epochs(steps).items() if task in batches.sources}
    said = []
    for task, number in seen.items():
        if number < 1:
            size = len(batches.sources[task].dataset)
            part = f"only {number:.1%} of its {size} training images are seen" if number else "it never trains"
            said.append(f"task {task}: {part}; {_MORE}")
    often, seldom = max(seen, key=seen.__getitem__), min(seen, key=seen.__getitem__)
    schedule = schedule.partition("@")[0]
    if schedule in _REMEDIES and seen[often] > _UNEVEN * seen[seldom]:
        said.append(
            f"each image of task {often} is seen {_times(seen[often])}, of task {seldom} {_times(seen[seldom])}. "
            f"If that is not meant: {_REMEDIES[schedule].format(often=often)}"
        )
    return said


def announce(batches: MixedBatches, steps: int) -> None:
    """Logs how often all of training will show each image."""
    _log(batches, steps, "will be seen")


def account(batches: MixedBatches, steps: int) -> None:
    """Logs how often the batches that were trained on have shown each image."""
    _log(batches, steps, "seen")


def _log(batches: MixedBatches, steps: int, verb: str) -> None:
    lenders = {task: lender for lender, source in batches.sources.items() for task in source.viewers if task != lender}
    for task, number in batches.epochs(steps).items():
        times = _times(number)
        if task in lenders:
            # How many of them it has labels for is not known before all are read.
            text = "task %s: looks at the images of %s, with a label of %s or without, each %s %s"
            LOG.info(text, task, lenders[task], task, verb, times)
        else:
            LOG.info("task %s: %d training images, each %s %s", task, len(batches.sources[task].dataset), verb, times)


def _times(number: float) -> str:
    """How often, with two significant digits where that is less than once."""
    return f"{number:.1f} times" if number >= 1 or number == 0 else f"{number:.2g} times"
