"""A task's splits together: what is in them, and what is odd about that."""

# Shapes: I images, B images of a batch.

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from mtframe.data import same_contents
from mtframe.errors import DataError, PluginError, one_line
from mtframe.kinds import (
    Dataset,
    Finding,
    HasNotes,
    InspectsFiles,
    PlacesWhole,
    ReadsLabels,
    ReportsOmissions,
    Survey,
    Surveys,
    Target,
    TellsUnlearnable,
    Transform,
)
from mtframe.omissions import BAD_LABELS, few_enough

from ._look import Look, SplitLook, files_of, look_at

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
        data: Name of its data set.
    """

    name: str
    title: str
    target: Target
    datasets: Mapping[str, Dataset]
    transform: Transform | None = None
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
        unlearnable: Things that no output of the head learns, and how many it was asked about; None if it was not
            (`ask_head`).
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
    """Looks at all splits of a task; for which no model is needed.

    Raises:
        StarvedError: Memory is short, or a process is gone.
        PluginError: A component finds what it does not say that it may find.
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
        )
    found = [Found(task.name, split, finding) for split in result.splits for finding in _of_split(task, split, result)]
    found += [Found(task.name, "", finding) for finding in _of_all(task, result)]
    result.found = sorted(found, key=_rank)
    return result


def ask_head(task: Surveyed, result: TaskSurvey, head: nn.Module, images: int) -> None:
    """Adds to a survey what no output of the task's head would learn. It is never an error.

    Args:
        task: The task.
        result: Its survey.
        head: Its built head; one that cannot tell (`TellsUnlearnable`) adds nothing.
        images: Images of a split, from all over it, that it is asked about.
    """
    for split, dataset in task.datasets.items():
        here = result.splits[split]
        here.unlearnable = _unlearnable(task, dataset, here.look, head, images)
        if here.unlearnable is None or not here.unlearnable[0]:
            continue
        number, asked = here.unlearnable
        things = here.survey.things if here.survey is not None else "things"
        text = f"{number} of {asked} {things} are learned by no output of the head at this size"
        finding = Finding("unlearnable", "warning" if number > _FEW * asked else "note", text)
        result.found.append(Found(task.name, split, finding))
    result.found.sort(key=_rank)


def _rank(one: Found) -> int:
    """Errors first."""
    return ("error", "warning", "note").index(one.finding.severity)


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
    look, images = here.look, here.look.images
    if look.missing:
        yield Finding(
            "missing-images", "error" if len(look.missing) > _MUCH * images else "warning",
            f"{len(look.missing)} of {images} labelled images are not there", tuple(look.missing[:_NAMED]),
        )  # fmt: skip
    if look.unreadable:
        text = f"{len(look.unreadable)} of {images} images cannot be read"
        yield Finding("unreadable", "error", text, tuple(look.unreadable[:_NAMED]))
    if look.wrong:
        few = few_enough(len(look.wrong), look.looked_at, BAD_LABELS)
        text = f"the labels of {len(look.wrong)} of {images} images are wrong"
        yield Finding("wrong-labels", "warning" if few else "error", text, tuple(look.wrong[:_NAMED]))
    if isinstance(dataset, InspectsFiles):
        yield from _declared(dataset, dataset.inspect())
    if (said := here.survey) is not None:
        if isinstance(task.target, Surveys):
            yield from _declared(task.target, said.findings)
        known = len(here.look.places) - said.unknown
        if said.total == 0 and known:
            why = f"there are no {said.things} on its {here.look.images} images"
            yield Finding("nothing-labelled", "error" if training else "warning", why)
        elif said.total and said.empty > _MUCH * known:
            yield Finding("mostly-empty", "warning", f"{said.empty} of {known} images have no {said.things} on them")
        idle = [name for name, number in said.classes.items() if not number]
        # Of a rare class, some images may show none where all would.
        if training and said.total and idle and look.looked_at == images:
            yield Finding(
                "class-without-any", "warning",
                f"{len(idle)} of {len(said.classes)} classes have no {said.things} to learn from", tuple(idle[:_NAMED]),
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
        looked = (result.splits[name].look for name in ("train", split))
        if ours is None or said is None or any(look.looked_at < look.images for look in looked):
            continue
        unseen = [name for name, number in said.classes.items() if number and not ours.classes.get(name)]
        if unseen and ours.total:
            yield Finding(
                "class-not-trained", "warning",
                f"{len(unseen)} classes are scored on {split} and have nothing to learn from in train",
                tuple(unseen[:_NAMED]),
            )  # fmt: skip


def _same_files(datasets: Mapping[str, Dataset]) -> Iterator[Finding]:
    paths = {split: list(files.values()) for split, dataset in datasets.items() if (files := files_of(dataset))}
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


def _declared(part: InspectsFiles | Surveys, found: Sequence[Finding]) -> Sequence[Finding]:
    """The findings, each of a name that can be allowed, since the part says that there is one."""
    for finding in found:
        if finding.name not in part.findings:
            raise PluginError(
                f"{type(part).__module__}:{type(part).__qualname__} found {finding.name!r}, which its `findings` do "
                f"not name ({', '.join(part.findings) or 'none'}), so that nobody could allow it"
            )
    return found


def _unlearnable(
    task: Surveyed, dataset: Dataset, seen: SplitLook, head: nn.Module, most: int
) -> tuple[int, int] | None:
    """Of images from all over a split: things that no output of the head learns, and how many there are."""
    transform, target = task.transform, task.target
    if transform is None:
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
