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


@dataclass
class Evaluation:
    """What came out of scoring one task on one split.

    Attributes:
        values: Every metric's values by name.
        primary: Name of the value that ranks checkpoints.
        higher_is_better: Whether more of it is better.
        images: Number of images scored.
        skipped: Images that could not be read, with the reason.
    """

    values: dict[str, float]
    primary: str
    higher_is_better: bool
    images: int
    skipped: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The primary value."""
        return self.values[self.primary]


@torch.inference_mode()
def predict_batch(
    model: MultiTaskModel, task: str, batch: Batch, *, flip: bool, precision: str
) -> list[dict[str, Tensor]]:
    """One task's predictions for a batch on the model's device, on the CPU in pixels of the original images.

    Args:
        model: In evaluation mode.
        task: Name of the task.
        batch: From the task's evaluation transform, on the model's device.
        flip: Whether to combine the outputs with those for the mirrored images (the head's `merge_flip`).
        precision: `bf16` or `fp32`.
    """
    head: Any = model.heads[task]
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = model({task: batch.images})[task]
        if flip:
            outputs = head.merge_flip(outputs, model({task: batch.images.flip(-1)})[task])
    predictions = head.predict(outputs, batch.geometry)
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
        flip: Flip test: outputs for an image and its mirror image are combined.
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
        predictions = predict_batch(model, task, batch.to(device), flip=flip, precision=precision)
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
    return Evaluation(values, metrics[0].primary, metrics[0].higher_is_better, images, skipped)


def evaluate_split(
    model: MultiTaskModel, assembly: Assembly, task: str, split: str, device: torch.device | str
) -> Evaluation:
    """Scores one task on one of its splits as its recipe says: transform, metrics, flip test, precision.

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
        precision=train.precision,
        workers=train.workers,
        device=device,
    )
