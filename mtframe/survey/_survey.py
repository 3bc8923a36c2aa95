"""A task's splits together: what is in them, and what is odd about that."""

# Shapes: I images, B images of a batch.

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from mtframe.data import same_contents
from mtframe.errors import DataError, one_line
from mtframe.kinds import (
    Dataset,
    Finding,
    HasNotes,
    InspectsFiles,
    KeepsFiles,
    LabelsImages,
    PlacesWhole,
    ReadsLabels,
    ReportsOmissions,
    Survey,
    Surveys,
    Target,
    TellsUnlearnable,
    Transform,
)

from ._look import Look, SplitLook, look_at

# Names in a finding.
_NAMED = 3

# Part of a split above which what is odd is more than a few stray files.
_MUCH = 0.5

# Part of the things that may be beyond a head without being odd.
_FEW = 0.05

# Images that a head is asked about at once.
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A task as a survey sees it.

    Attributes:
        name: Of the task.
        title: What it is, for the head of its table: `coco, 320 pixels`.
        target: Its kind of target.
        datasets: By split, that for training first.
        transform: Without augmentation; None if nobody knows the size that it will be trained at.
        head: The built head; None if there is none.
        data: Name of its data set.
    """

    name: str
    title: str
    target: Target
    datasets: Mapping[str, Dataset]
    transform: Transform | None = None
    head: nn.Module | None = None
    data: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A finding and where it was made: in a split of a task, or in several ("")."""

    task: str
    split: str
    finding: Finding

    def line(self) -> str:
        """In words, with its name behind it."""
        where = ", ".join(filter(None, (self.task, self.split)))
        some = [one_line(example) for example in self.finding.examples[:_NAMED]]
        more = f" (e.g. {'; '.join(some)})" if some else ""
        return f"{where}: {self.finding.text}{more} [{self.finding.name}]"


@dataclass(slots=True)
class SplitSurvey:
    """What is in a split.

    Attributes:
        look: What was seen of its images.
        survey: What its labels say; None if they were not read, or their kind counts nothing.
        omitted: What was left out, by reason.
        notes: What the data set has to say.
        unlearnable: Things that no output of the head learns, and how many it was asked about; None if it was not.
    """

    look: SplitLook
    survey: Survey | None
    omitted: Mapping[str, int]
    notes: Sequence[str]
    unlearnable: tuple[int, int] | None = None


@dataclass(slots=True)
class TaskSurvey:
    """What is in a task's data.

    Attributes:
        name: Of the task.
        title: What it is.
        splits: By name.
        found: What a person should know, errors first.
    """

    name: str
    title: str
    splits: dict[str, SplitSurvey]
    found: list[Found] = field(default_factory=list)


def survey(task: Surveyed, look: Look) -> TaskSurvey:
    """Looks at all splits of a task.

    Raises:
        StarvedError: Memory is short, or a process is gone.
    """
    result = TaskSurvey(task.name, task.title, {})
    for split, dataset in task.datasets.items():
        seen = look_at(dataset, task.target, look)
        said = None
        if isinstance(task.target, Surveys) and seen.read:
            said = task.target.survey(seen.condensed, seen.scales(task.transform))
        result.splits[split] = SplitSurvey(
            seen,
            said,
            dict(dataset.omitted) if isinstance(dataset, ReportsOmissions) else {},
            tuple(dataset.notes) if isinstance(dataset, HasNotes) else (),
            _unlearnable(task, dataset, seen, look.learnable),
        )
    found = [Found(task.name, split, finding) for split in result.splits for finding in _of_split(task, split, result)]
    found += [Found(task.name, "", finding) for finding in _of_all(task, result)]
    ranks = ("error", "warning", "note")
    result.found = sorted(found, key=lambda one: ranks.index(one.finding.severity))
    return result


def refuse(surveys: Sequence[TaskSurvey], allowed: Collection[str]) -> None:
    """Raises DataError of what cannot be meant, unless its name is among those that are allowed."""
    wrong = [
        one for one in (found for each in surveys for found in each.found)
        if one.finding.severity == "error" and one.finding.name not in allowed
    ]  # fmt: skip
    if wrong:
        names = ", ".join(dict.fromkeys(one.finding.name for one in wrong))
        lines = "\n  ".join(one.line() for one in wrong)
        raise DataError(f"the data cannot be meant as it is:\n  {lines}\nIf it is: train.allow=[{names}]")


def _of_split(task: Surveyed, split: str, result: TaskSurvey) -> Iterator[Finding]:
    here, dataset = result.splits[split], task.datasets[split]
    training = split == "train"
    if here.look.unreadable:
        number, images = len(here.look.unreadable), here.look.images
        yield Finding(
            "unreadable", "error", f"{number} of {images} images cannot be read", tuple(here.look.unreadable[:_NAMED])
        )
    if isinstance(dataset, InspectsFiles):
        yield from dataset.inspect()
    if (said := here.survey) is not None:
        yield from said.findings
        known = len(here.look.places) - said.unknown
        if said.total == 0 and known:
            why = f"there are no {said.things} on its {here.look.images} images"
            yield Finding("nothing-labelled", "error" if training else "warning", why)
        elif said.total and said.empty > _MUCH * known:
            yield Finding("mostly-empty", "warning", f"{said.empty} of {known} images have no {said.things} on them")
        idle = [name for name, number in said.classes.items() if not number]
        if training and said.total and idle:
            yield Finding(
                "class-without-any", "warning",
                f"{len(idle)} of {len(said.classes)} classes have no {said.things} to learn from", tuple(idle[:_NAMED]),
            )  # fmt: skip
    if here.unlearnable is not None and here.unlearnable[0]:
        number, asked = here.unlearnable
        things = said.things if said is not None else "things"
        yield Finding(
            "unlearnable", "warning" if number > _FEW * asked else "note",
            f"{number} of {asked} {things} are learned by no output of the head at this size",
        )  # fmt: skip


def _of_all(task: Surveyed, result: TaskSurvey) -> Iterator[Finding]:
    """What is odd about splits beside each other."""
    if "train" in task.datasets:
        yield from _classes_apart(task, result)
    yield from _same_files(task.datasets)


def _classes_apart(task: Surveyed, result: TaskSurvey) -> Iterator[Finding]:
    trained, ours = task.datasets["train"].info.classes, result.splits["train"].survey
    for split, dataset in task.datasets.items():
        theirs = dataset.info.classes
        # Data without classes of its own, as pairs of strangers, has none that differ.
        if split == "train" or not theirs:
            continue
        if theirs != trained:
            other = [name for name in theirs if name not in trained] or [
                name for name, wanted in zip(theirs, trained, strict=False) if name != wanted
            ]
            yield Finding(
                "classes-differ", "error",
                f"{split} has {len(theirs)} classes and train {len(trained)}, which are not the same in the same order",
                tuple(other[:_NAMED]),
            )  # fmt: skip
            continue
        said = result.splits[split].survey
        if ours is None or said is None:
            continue
        unseen = [name for name, number in said.classes.items() if number and not ours.classes.get(name)]
        if unseen and ours.total:
            yield Finding(
                "class-not-trained", "warning",
                f"{len(unseen)} classes are scored on {split} and have nothing to learn from in train",
                tuple(unseen[:_NAMED]),
            )  # fmt: skip


def _same_files(datasets: Mapping[str, Dataset]) -> Iterator[Finding]:
    paths = {split: files for split, dataset in datasets.items() if (files := image_files(dataset))}
    shared: dict[tuple[str, str], list[str]] = {}
    names = list(paths)
    for group in same_contents(paths):
        here = [split for split in names if split in group]
        for first in here:
            for second in here[here.index(first) + 1 :]:
                one, other = paths[first][group[first][0]], paths[second][group[second][0]]
                shared.setdefault((first, second), []).extend([f"{one} and {other}"] * len(group[second]))
    for (first, second), pairs in shared.items():
        number, images = len(pairs), len(paths[second])
        yield Finding(
            "same-file", "error" if number > _MUCH * images else "warning",
            f"{number} of the {images} images of {second} are in {first} too, by content",
            tuple(dict.fromkeys(pairs)),
        )  # fmt: skip


def image_files(dataset: Dataset) -> list[Path]:
    """Where the images are; nothing of data that does not keep each in a file of its own."""
    if not isinstance(dataset, LabelsImages) or not isinstance(dataset, KeepsFiles):
        return []
    return [dataset.root / id for id in dataset.ids()]


def _unlearnable(task: Surveyed, dataset: Dataset, seen: SplitLook, most: int) -> tuple[int, int] | None:
    """Of images from all over a split: things that no output of the head learns, and how many there are."""
    head, transform, target = task.head, task.transform, task.target
    if head is None or transform is None:
        return None
    if not isinstance(head, TellsUnlearnable) or not isinstance(transform, PlacesWhole):
        return None
    if not isinstance(target, Surveys) or not isinstance(dataset, ReadsLabels):
        return None
    known = [place for place, size in zip(seen.places, seen.sizes, strict=True) if min(size) > 0]
    chosen = [known[int(at)] for at in np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).round())]
    lost = asked = 0
    for start in range(0, len(chosen), _BATCH):
        samples = [dataset.annotated(place) for place in chosen[start : start + _BATCH]]
        places = [transform.placement_of(sample.size) for sample in samples]
        labels = [target.placed([(sample.target, place)]) for sample, place in zip(samples, places, strict=True)]
        lost += int(head.unlearnable(target.collate(labels), places[0].input_size).sum())
        said = target.survey([target.condensed(sample) for sample in samples], np.full(len(samples), np.nan))
        asked += said.total
    return lost, asked
