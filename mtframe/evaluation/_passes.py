"""From inputs of the network to predictions: one pass of the backbone for all tasks that look at the same inputs."""

# Shapes: B images, h and w of an input.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.assembly import Assembly
from mtframe.data import Batch, Placement
from mtframe.device import inference_precision
from mtframe.kinds import Head, MergesViews, Target
from mtframe.model import MultiTaskModel

Prediction = dict[str, Tensor]
Views = list[tuple[Prediction, Placement]]

# Inputs, and the tasks that look at them.
_Asked = tuple[tuple[str, ...], Batch]

# Backbones and pyramids halve sizes up to five times.
_MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class TaskViews:
    """How one task looks at an image.

    Attributes:
        target: Its kind of target, which brings predictions back to the original and makes one of several views.
        flip: Whether it looks at the mirror image too.
        scales: At which sizes, as parts of the input's.
    """

    target: Target
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class View:
    """What goes through the backbone in one pass.

    Attributes:
        tasks: Who looks at it.
        scale: At which size, as a part of the input's.
        mirrored: For each image of the pass that is made of one input, whether it is the mirror image.
    """

    tasks: tuple[str, ...]
    scale: float
    mirrored: tuple[bool, ...]

    def side(self, size: int) -> int:
        """Pixels at this scale of a side of `size` pixels; rounded to what backbones can halve."""
        return size if self.scale == 1 else max(_MULTIPLE, round(size * self.scale / _MULTIPLE) * _MULTIPLE)


def views_of(task_views: Mapping[str, TaskViews], tasks: Sequence[str]) -> Iterator[View]:
    """The passes that tasks on one input take: one for each scale, mirror images in it where all want these."""
    for scale in dict.fromkeys(scale for task in tasks for scale in task_views[task].scales):
        wanting = tuple(task for task in tasks if scale in task_views[task].scales)
        mirroring = tuple(task for task in wanting if task_views[task].flip)
        if mirroring == wanting:
            yield View(wanting, scale, (False, True))
            continue
        yield View(wanting, scale, (False,))
        if mirroring:
            yield View(mirroring, scale, (True,))


class Passes:
    """A model that is asked about batches of inputs.

    Args:
        model: In evaluation mode.
        task_views: How each task looks at an image.
        precision: `bf16` or `fp32`.
    """

    def __init__(self, model: MultiTaskModel, task_views: Mapping[str, TaskViews], precision: str = "fp32") -> None:
        self.model = model
        self.task_views = dict(task_views)
        self.precision = precision

    @classmethod
    def of(cls, model: MultiTaskModel, assembly: Assembly) -> Passes:
        """Passes as a recipe asks for them: with its views, and in its precision where that is faster."""
        return cls(
            model,
            task_views_of(assembly),
            inference_precision(model.sharing, assembly.recipe.train.precision, model.mean.device),
        )

    @torch.inference_mode()
    def predict(self, batches: Mapping[tuple[str, ...], Batch]) -> dict[str, list[Prediction]]:
        """Predictions by task, one for each image, on the CPU, in pixels of the originals.

        Args:
            batches: By the tasks that look at it; no task twice. One call of the model serves all that can go together:
                images and their mirror images, and batches of tasks that share a pass.
        """
        views: dict[str, list[Views]] = {
            task: [[] for _ in range(len(batch))] for tasks, batch in batches.items() for task in tasks
        }
        for together in self._together(batches):
            self._run(together, views)
        return {task: [self._one(task, found) for found in images] for task, images in views.items()}

    def _together(self, batches: Mapping[tuple[str, ...], Batch]) -> Iterable[Sequence[_Asked]]:
        """What is looked at, in calls of the model: of each batch one view at most, and all of one size.

        Tasks that share a pass have images of one size, but they may look at these at scales of their own.
        """
        calls: dict[tuple[torch.Size, int], list[_Asked]] = {}
        for tasks, batch in batches.items():
            numbers: Counter[torch.Size] = Counter()
            for asked in self._views(tasks, batch.to(self.model.mean.device)):
                size = asked[1].images.shape[2:]
                calls.setdefault((size, numbers[size]), []).append(asked)
                numbers[size] += 1
        return calls.values()

    def _views(self, tasks: Sequence[str], batch: Batch) -> Iterator[_Asked]:
        """What is looked at, and by whom."""
        for view in views_of(self.task_views, tasks):
            resized = batch if view.scale == 1 else _resized(batch, view)
            parts = [_mirrored(resized) if mirrored else resized for mirrored in view.mirrored]
            yield view.tasks, parts[0] if len(parts) == 1 else _joined(*parts)

    def _run(self, asked: Sequence[_Asked], views: Mapping[str, list[Views]]) -> None:
        """One call of the model; adds what heads say to the views of each image."""
        images = {tasks[0]: batch.images for tasks, batch in asked}
        lenders = {task: tasks[0] for tasks, _ in asked for task in tasks[1:]}
        device = self.model.mean.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.model(images, lenders)
        for tasks, batch in asked:
            bounds = batch.bounds.to(device)
            for task in tasks:
                head: Head = self.model.heads[task]  # type: ignore[assignment]
                found = head.predict(outputs[task], bounds)
                for row, (prediction, placement) in enumerate(zip(found, batch.placements, strict=True)):
                    kept = {name: value.cpu() for name, value in prediction.items()}
                    views[task][row % len(views[task])].append((kept, placement))

    def _one(self, task: str, views: Views) -> Prediction:
        """One prediction of all views of an image."""
        target, head = self.task_views[task].target, self.model.heads[task]
        if len(views) > 1 and isinstance(head, MergesViews):
            return head.merge_views([target.restored([view]) for view in views])
        return target.restored(views)


def task_views_of(assembly: Assembly) -> dict[str, TaskViews]:
    """How each task of a recipe looks at an image."""
    return {
        task: TaskViews(assembly.target(task), part.flip_test, tuple(part.test_scales))
        for task, part in assembly.recipe.tasks.items()
    }


def _joined(one: Batch, other: Batch) -> Batch:
    images = torch.cat([one.images, other.images])
    return replace(one, images=images, placements=[*one.placements, *other.placements])


def _resized(batch: Batch, view: View) -> Batch:
    rows, columns = (view.side(side) for side in batch.images.shape[-2:])
    images = F.interpolate(batch.images.float(), size=(rows, columns), mode="bilinear", antialias=True)
    return replace(batch, images=images, placements=[place.resized((rows, columns)) for place in batch.placements])


def _mirrored(batch: Batch) -> Batch:
    return replace(batch, images=batch.images.flip(-1), placements=[place.flipped() for place in batch.placements])
