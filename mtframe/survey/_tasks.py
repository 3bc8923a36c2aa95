"""What a survey needs of each task, from an assembly."""

from __future__ import annotations

from collections.abc import Sequence

from mtframe.assembly import Assembly
from mtframe.errors import MtframeError
from mtframe.kinds import Dataset

from ._survey import Surveyed


def surveyed_tasks(assembly: Assembly, splits: Sequence[str]) -> list[Surveyed]:
    """The trained tasks with their data; of a split that cannot be read, those who need it say so.

    Args:
        assembly: The recipe's parts.
        splits: Those that are looked at, where a data set has them.
    """
    tasks = []
    for task in assembly.recipe.trained:
        datasets = dict[str, Dataset]()
        for split in splits:
            try:
                datasets[split] = assembly.training_data(task) if split == "train" else assembly.dataset(task, split)
            except MtframeError:
                continue
        part = assembly.recipe.tasks[task]
        tasks.append(
            Surveyed(
                task,
                f"{part.dataset.name}, {part.size} pixels",
                assembly.target(task),
                datasets,
                assembly.transform(task, train=False),
                part.dataset.name,
            )
        )
    return tasks
