"""Scoring tasks on a split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from mtframe.assembly import Assembly
from mtframe.data import Batch, SplitBatches
from mtframe.errors import DataError
from mtframe.kinds import (
    ChoosesGalleryThresholds,
    ChoosesThresholds,
    Dataset,
    ExplainsGaps,
    HasDetails,
    HasNotes,
    LabelsImages,
    Metric,
)
from mtframe.metrics import Thresholds
from mtframe.model import MultiTaskModel

from ._details import Detail
from ._passes import Passes

# Of a value that is NaN, where its metric does not say why.
_UNRESOLVED = "this data cannot resolve it"


@dataclass
class Evaluation:
    """What came out of scoring one task on one split.

    Attributes:
        values: Every metric's values by name.
        ranking: By name of the values that can rank checkpoints, the primary one of each metric in the task's order,
            whether more of it is better.
        images: Number of images scored.
        skipped: Images that could not be read, with the reason.
        notes: What else the metrics have to say, in sentences.
        details: What does not fit into a number.
        thresholds: What the first metrics that choose thresholds, of pairs and of galleries, have chosen here; None if
            none does.
        gaps: By name of each value that is NaN, why this data cannot resolve it.
        primary: Name of the value that ranks checkpoints: the first of `ranking` that is not NaN; the first where all
            are, or one that was said.
    """

    values: dict[str, float]
    ranking: dict[str, bool]
    images: int
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)
    thresholds: Thresholds | None = None
    gaps: dict[str, str] = field(default_factory=dict)
    primary: str = ""

    def __post_init__(self) -> None:
        self.primary = self.primary or ranks_by(self.ranking, self.values) or next(iter(self.ranking))

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the primary value is better."""
        return self.ranking[self.primary]

    @property
    def score(self) -> float:
        """The primary value."""
        return self.values[self.primary]

    @property
    def shown(self) -> str:
        """The primary value as people read it, in four digits; with its name where it is not the first metric's or
        n/a, and then with why."""
        if not math.isnan(self.score):
            first = self.primary == next(iter(self.ranking))
            return f"{self.score:.4f}" if first else f"{self.primary} {self.score:.4f}"
        return f"{self.primary} n/a ({self.gaps.get(self.primary, _UNRESOLVED)})"

    @property
    def remarks(self) -> list[str]:
        """What stands below the values: why some are n/a, a sentence for each reason, and the metrics' notes."""
        by_reason: dict[str, list[str]] = {}
        for name, why in self.gaps.items():
            by_reason.setdefault(why, []).append(name)
        said = [f"{', '.join(names)} n/a: {why}" for why, names in by_reason.items()]
        return [*said, *([self.ranked] if self.ranked else []), *self.notes]

    @property
    def ranked(self) -> str:
        """What checkpoints are ranked by where it is not the first metric's primary value; else nothing."""
        first, *others = self.ranking
        if math.isnan(self.score):
            also = f", and so {'is' if len(others) == 1 else 'are'} {', '.join(others)}" if others else ""
            return f"cannot be ranked: {first} is n/a{also}"
        return "" if self.primary == first else f"ranked by {self.primary}, since {first} is n/a"


def ranks_by(ranking: Iterable[str], values: Mapping[str, float]) -> str | None:
    """The first of these values that is there and not NaN; None without one."""
    return next((name for name in ranking if not math.isnan(values.get(name, math.nan))), None)


def evaluate(
    model: MultiTaskModel,
    assembly: Assembly,
    tasks: Sequence[str],
    split: str,
    *,
    details: bool = False,
    kept: Mapping[str, Thresholds] | None = None,
) -> dict[str, Evaluation]:
    """Scores tasks on one split of their data as their recipe says: transform, metrics, views, precision.

    Tasks that look at the same inputs of the same images are scored together: each image is read once and passes the
    backbone once.

    Args:
        model: The model; put into evaluation mode, and left in the mode it was in.
        assembly: Its parts.
        tasks: Which of its tasks.
        split: One of the splits of their data sets.
        details: Whether to ask the metrics for details as well, which may take longer.
        kept: By task, the thresholds that are kept with the weights: what they do here is scored too.

    Returns:
        By task, in the order of `tasks`.

    Raises:
        MtframeError: The split cannot be read, or not one image of it.
    """
    passes = Passes.of(model, assembly)
    was_training = model.training
    model.eval()
    try:
        found: dict[str, Evaluation] = {}
        for group in assembly.input_groups(tasks):
            for reader, others in _readers(assembly, group, split):
                found |= _score(passes, assembly, reader, others, split, kept or {}, details=details)
        return {task: found[task] for task in tasks}
    finally:
        model.train(was_training)


def _readers(assembly: Assembly, group: Sequence[str], split: str) -> Iterator[tuple[str, dict[str, LabelsImages]]]:
    """Whose split is read, and the splits of other tasks that are of these images too, and are not read again."""
    datasets = {task: assembly.dataset(task, split) for task in group}
    # Of equal ones the one that lends its images: it reads them as training does.
    left = sorted(group, key=lambda task: (-len(datasets[task]), assembly.recipe.tasks[task].images is not None))
    while left:
        reader = left.pop(0)
        others = {task: its for task in left if (its := _within(assembly, task, reader, datasets)) is not None}
        left = [task for task in left if task not in others]
        yield reader, others


def _within(assembly: Assembly, task: str, reader: str, datasets: Mapping[str, Dataset]) -> LabelsImages | None:
    """A task's split, if all its images are among those of another's."""
    lent = {assembly.recipe.tasks[name].images or name for name in (task, reader)}
    own, read = datasets[task], datasets[reader]
    # Ids mean the same images where a recipe says so, not where two folders happen to have a file of one name.
    if len(lent) > 1 or not isinstance(own, LabelsImages) or not isinstance(read, LabelsImages):
        return None
    return own if set(own.ids()) <= set(read.ids()) else None


def _score(
    passes: Passes,
    assembly: Assembly,
    reader: str,
    others: Mapping[str, LabelsImages],
    split: str,
    kept: Mapping[str, Thresholds],
    *,
    details: bool,
) -> dict[str, Evaluation]:
    """The tasks that are scored on the images that one of them reads."""
    dataset, transform = assembly.readable(reader, split), assembly.transform(reader, train=False)
    batches = SplitBatches(reader, dataset, transform, assembly.recipe.tasks[reader].batch_size, others)
    with ExitStack() as lent:
        metrics = {task: lent.enter_context(assembly.scoring(task, split)) for task in (reader, *others)}
        return _scores(passes, assembly, batches, metrics, split, kept, details=details)


def _scores(
    passes: Passes,
    assembly: Assembly,
    batches: SplitBatches,
    metrics: Mapping[str, Sequence[Metric]],
    split: str,
    kept: Mapping[str, Thresholds],
    *,
    details: bool,
) -> dict[str, Evaluation]:
    """What metrics of some tasks say of the batches of their images."""
    counts, skipped = dict.fromkeys(metrics, 0), {task: list[str]() for task in metrics}
    for batch in batches.batches(assembly.recipe.train.workers):
        for task, reasons in {batches.task: batch.skipped, **batch.skipped_too}.items():
            skipped[task] += reasons
        if len(batch):
            _update(passes, batch, metrics, counts)
    for task, count in counts.items():
        if count == 0:
            raise DataError(
                f"tasks.{task}.dataset: none of its {len(assembly.dataset(task, split))} images can be read, so there "
                "is nothing to score" + "".join(f"\n  {reason}" for reason in skipped[task][:3])
            )
    return {
        task: _evaluation(metrics[task], counts[task], skipped[task], kept.get(task), details=details)
        for task in metrics
    }


def _update(passes: Passes, batch: Batch, metrics: Mapping[str, Sequence[Metric]], counts: dict[str, int]) -> None:
    """Shows a batch's predictions to the metrics of each task that has the image in its split."""
    for task, predictions in passes.predict({tuple(metrics): batch}).items():
        pairs = zip(predictions, batch.samples[task], strict=True)
        seen = [(prediction, sample) for prediction, sample in pairs if sample is not None]
        for metric in metrics[task] if seen else ():
            metric.update([prediction for prediction, _ in seen], [sample for _, sample in seen])
        counts[task] += len(seen)


def _evaluation(
    metrics: Sequence[Metric], images: int, skipped: list[str], kept: Thresholds | None, *, details: bool
) -> Evaluation:
    values: dict[str, float] = {}
    gaps: dict[str, str] = {}
    choosing = next((metric for metric in metrics if isinstance(metric, ChoosesThresholds)), None)
    searching = next((metric for metric in metrics if isinstance(metric, ChoosesGalleryThresholds)), None)
    for metric in metrics:
        found = metric.compute()
        if metric is choosing and kept is not None and kept.value is not None:
            found = {**found, **choosing.scores_at(kept.value)}
        if metric is searching and kept is not None and kept.gallery is not None:
            found = {**found, **searching.scores_with(kept.gallery)}
        why = metric.gaps() if isinstance(metric, ExplainsGaps) else {}
        values |= found
        gaps |= {name: why.get(name, _UNRESOLVED) for name, value in found.items() if math.isnan(value)}
    return Evaluation(
        values, {metric.primary: metric.higher_is_better for metric in metrics}, images, skipped,
        notes=[note for metric in metrics if isinstance(metric, HasNotes) for note in metric.notes],
        details=[
            detail for metric in metrics if details and isinstance(metric, HasDetails) for detail in metric.details()
        ],
        gaps=gaps,
        thresholds=_thresholds(choosing, searching),
    )  # fmt: skip


def _thresholds(choosing: ChoosesThresholds | None, searching: ChoosesGalleryThresholds | None) -> Thresholds | None:
    """What two metrics choose, of which one may lack."""
    if searching is None:
        return None if choosing is None else choosing.thresholds()
    pairs = Thresholds("", {}, "") if choosing is None else choosing.thresholds()
    return replace(pairs, gallery=searching.gallery_thresholds())
