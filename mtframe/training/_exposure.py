"""How often training shows each task's images: told before it begins, and again when it is over."""

from __future__ import annotations

from mtframe.data import MixedBatches

from ._log import LOG

# From this factor between two tasks on, it is said what shows them more alike.
_UNEVEN = 10

# What that is, by schedule. Of `epochs` and `proportional` the exposures are alike but for the end.
_REMEDIES = {
    "joint": "train.schedule=proportional shows all equally often, and temperature is between; so are a smaller "
    "tasks.{often}.batch_size and tasks.{often}.every=N",
    "round-robin": "train.schedule=proportional shows all equally often, and temperature is between; so is a smaller "
    "tasks.{often}.batch_size",
    "temperature": "a train.temperature nearer to 1 shows them more alike",
}


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
            said.append(f"task {task}: {part}; train.epochs=1 or more shows each once, as may another train.schedule")
    often, seldom = max(seen, key=seen.__getitem__), min(seen, key=seen.__getitem__)
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
    for task, number in batches.epochs(steps).items():
        if task in batches.sources:
            size = len(batches.sources[task].dataset)
            LOG.info("task %s: %d training images, each %s %s", task, size, verb, _times(number))


def _times(number: float) -> str:
    """With two digits that count where it is below once."""
    return f"{number:.1f} times" if number >= 1 or number == 0 else f"{number:.2g} times"
