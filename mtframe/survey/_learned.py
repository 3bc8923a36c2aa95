"""Images that weights have learned from: recognised by content where scores are to tell of new ones.

A run keeps a mark of each image that it is trained on, and those of the runs that its weights come from. An image that
was encoded anew is another one, and images inside record files are not compared.
"""

# Shapes: I images.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mtframe._labels import run_of
from mtframe.assembly import Assembly
from mtframe.data import content_marks
from mtframe.errors import MtframeError
from mtframe.kinds import Dataset, Finding
from mtframe.run import read_learned

from ._look import files_of
from ._survey import Found, Surveyed

# (I,) marks of images by where they were learned, in words; none where nobody knows which.
Learned = dict[str, np.ndarray]

# How many known images are named.
_NAMED = 3


def learned_images(assembly: Assembly) -> Learned:
    """What a training of these parts learns from: of each trained task, and what the weights it starts from have."""
    recipe = assembly.recipe
    found = learned_before(recipe.train.start)
    for task in recipe.trained if recipe.train.steps != 0 else ():
        if paths := _paths(assembly.training_data(task)):
            found[learned_of(task, recipe.tasks[task].dataset.name)] = content_marks(paths)
    return found


def learned_before(start: str | None) -> Learned:
    """What weights have learned from: by a run's own words behind its name."""
    if start is None:
        return {}
    with suppress(MtframeError):
        folder = run_of(start)
        kept = read_learned(Path(folder)) if folder is not None else None
        if kept is not None:
            return {f"{start}: {where}": marks for where, marks in kept.items()}
    return {start: np.zeros(0, dtype=np.int64)}


def learned_of(task: str, dataset: str) -> str:
    """The words for what a task of this recipe learns from."""
    return f"task {task} ({dataset})"


def learned_notes(dataset: Dataset, split: str, learned: Learned) -> list[str]:
    """What a score on a split says little about, in sentences."""
    notes = [
        f"{text}{f', as {examples[0]}' if examples else ''}: the score says little about other images"
        for text, examples in _again(_paths(dataset), split, learned)
    ]
    unknown = [where for where, marks in learned.items() if not len(marks)]
    if unknown and _paths(dataset):
        notes.append(f"whether {', '.join(unknown)} has learned from images of this split is not known")
    return notes


def across_tasks(tasks: Sequence[Surveyed], learned: Learned) -> Iterator[Found]:
    """Images that are to be scored, and that another task or the weights to start from have learned from.

    Args:
        tasks: Those that are trained, with their splits.
        learned: What the training learns from, as `learned_images` has it.
    """
    for task in tasks:
        own = learned_of(task.name, task.data)
        others = {where: marks for where, marks in learned.items() if where != own and len(marks)}
        for split, dataset in task.datasets.items() if others else ():
            if split != "train":
                for text, examples in _again(_paths(dataset), split, others):
                    yield Found(task.name, split, Finding("learned-elsewhere", "warning", text, tuple(examples)))


def _paths(dataset: Dataset) -> list[Path]:
    """Where the images are; nothing of data that does not keep each in a file of its own."""
    return list(files_of(dataset).values())


def _again(paths: Sequence[Path], split: str, learned: Mapping[str, np.ndarray]) -> Iterator[tuple[str, list[str]]]:
    """For each place where some of these images were learned: how many, in words, and the first of them."""
    marks = content_marks(paths)
    for where, theirs in learned.items():
        known = np.flatnonzero(np.isin(marks, theirs) & (marks != 0))
        if len(known):
            text = f"{len(known)} of the {len(paths)} images of {split} are in the training data of {where}, by content"
            yield text, [str(paths[place]) for place in known[:_NAMED].tolist()]
