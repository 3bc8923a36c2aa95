from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import Batch, SplitBatches
from mtframe.errors import DataError
from mtframe.kinds import Dataset, Metric, Transform
from mtframe.model import MultiTaskModel

from ._details import Detail
from ._views import views_of


@dataclass
class Evaluation:
    """What came out of scoring one task on one split.

    Attributes:
        values: Every metric's values by name.
        primary: Name of the value that ranks checkpoints.
        higher_is_better: Whether more of it is better.
        images: Number of images scored.
        skipped: Images that could not be read, with the reason.
        notes: What the metrics have to say besides, in sentences.
        details: What does not fit into a number.
    """

    values: dict[str, float]
    primary: str
    higher_is_better: bool
    images: int
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The primary value."""
        return self.values[self.primary]


@torch.inference_mode()
def predict_batch(
    model: MultiTaskModel, task: str, batch: Batch, *, flip: bool, scales: Sequence[float] = (1.0,), precision: str
) -> list[dict[str, Tensor]]:
    """One task's predictions for a batch on the model's device, on the CPU in pixels of the original images.

    Args:
        model: In evaluation mode.
        task: Name of the task.
        batch: From the task's evaluation transform, on the model's device.
        flip: Whether to look at the mirrored images too; what is seen is merged by the head's `merge_views`.
        scales: At which sizes to look at the images, as parts of theirs.
        precision: `bf16` or `fp32`.
    """
    head: Any = model.heads[task]
    seen = []
    for view in views_of(batch, flip, scales):
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = model({task: view.images})[task]
        seen.append(head.predict(outputs, view.geometry))
    predictions = seen[0] if len(seen) == 1 else [head.merge_views(views) for views in zip(*seen, strict=True)]
    return [{name: value.cpu() for name, value in prediction.items()} for prediction in predictions]


def evaluate_task(
    model: MultiTaskModel,
    task: str,
    dataset: Dataset,
    transform: Transform,
    metrics: Sequence[Metric],
    *,
    batch_size: int,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    details: bool = False,
    precision: str = "fp32",
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Scores one task on one split.

    Args:
        model: The model; put into evaluation mode, and left in the mode it was in.
        task: Name of the task.
        dataset: The split.
        transform: The task's evaluation transform.
        metrics: Metrics for that split; the first one's primary value is the score.
        batch_size: Images a forward pass.
        flip: Look at mirror images too, and merge what is seen.
        scales: Look at images at these parts of their size, and merge what is seen.
        details: Whether to ask the metrics for details as well, which may take longer.
        precision: `bf16` or `fp32`.
        workers: Loader processes.
        device: Where the model is.

    Returns:
        Values, primary score, number of images and what was skipped.

    Raises:
        DataError: Not one image can be read.
    """
    was_training = model.training
    model.eval()
    images, skipped = 0, []
    for batch in SplitBatches(dataset, transform, batch_size).batches(workers):
        if isinstance(batch, list):
            skipped += batch
            continue
        skipped += batch.skipped
        predictions = predict_batch(model, task, batch.to(device), flip=flip, scales=scales, precision=precision)
        for metric in metrics:
            metric.update(predictions, batch.samples)
        images += len(batch)
    model.train(was_training)
    if images == 0:
        raise DataError(
            f"tasks.{task}.dataset: none of its {len(dataset)} images can be read, so there is nothing to score"
            + "".join(f"\n  {reason}" for reason in skipped[:3])
        )
    values: dict[str, float] = {}
    for metric in metrics:
        values |= metric.compute()
    told: Sequence[Any] = metrics
    return Evaluation(
        values, metrics[0].primary, metrics[0].higher_is_better, images, skipped,
        notes=[note for metric in told for note in getattr(metric, "notes", ())],
        details=[detail for metric in told if details and hasattr(metric, "details") for detail in metric.details()],
    )  # fmt: skip


def evaluate_split(
    model: MultiTaskModel,
    assembly: Assembly,
    task: str,
    split: str,
    device: torch.device | str,
    *,
    details: bool = False,
) -> Evaluation:
    """Scores one task on one of its splits as its recipe says: transform, metrics, views, precision.

    Raises:
        MtframeError: The split cannot be read.
    """
    part, train = assembly.recipe.tasks[task], assembly.recipe.train
    dataset = assembly.dataset(task, split)
    return evaluate_task(
        model,
        task,
        dataset,
        assembly.transform(task, train=False),
        assembly.metrics(task, dataset),
        batch_size=part.batch_size,
        flip=part.flip_test,
        scales=part.test_scales,
        details=details,
        precision=train.precision,
        workers=train.workers,
        device=device,
    )
