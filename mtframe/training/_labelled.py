"""Which tasks of a step have a label to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from mtframe.data import Batch

# Where the kinds of target that may be unknown (see `DataInfo.target`) say it.
_TARGETS = {"identity": "label", "label": "label", "labels": "labels", "value": "value"}


def labelled(batches: Mapping[str, Batch], kinds: Mapping[str, str]) -> dict[str, Batch]:
    """The batches with the tasks that know something of them.

    A task that knows none of its images has a loss of 0, which a balancer would take for that of a task at its optimum:
    MGDA would stop what is shared, uncertainty weighting let the task's weight grow without end. So it takes no part in
    the step. Where others know the same images, the first of them stands in for it.

    Args:
        batches: Those of a step, by task.
        kinds: Each trained task's kind of target, `DataInfo.target`. Another one may only lend its images.

    Returns:
        By task, those of which something is known; perhaps none.
    """
    kept = {}
    for task, batch in batches.items():
        told = {name: targets for name, targets in {task: batch.targets, **batch.also}.items()
                if name in kinds and _knows(kinds[name], targets)}  # fmt: skip
        if told:
            owner, *others = told
            kept[owner] = replace(batch, targets=told[owner], also={name: told[name] for name in others})
    return kept


def _knows(kind: str, targets: Mapping[str, Tensor]) -> bool:
    """Whether anything is known; of kinds that have no word for unknown (no boxes is knowledge), always."""
    name = _TARGETS.get(kind, "")
    return name not in targets or bool(known(targets[name]).any())


def known(target: Tensor) -> Tensor:
    """What of an image-level target is known: -1 stands for an unknown class, NaN for an unknown number."""
    return target.isfinite() if target.is_floating_point() else target >= 0
