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
_View = tuple[tuple[str, ...], Batch]

# Backbones and pyramids halve sizes up to five times.
_MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class Look:
    """How one task looks at an image.

    Attributes:
        target: Its kind of target, which brings predictions back to the original and makes one of several views.
        flip: Whether it looks at the mirror image too.
        scales: At which sizes, as parts of the input's.
    """

    target: Target
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)


class Passes:
    """A model that is asked about batches of inputs.

    Args:
        model: In evaluation mode.
        looks: How each task looks at an image.
        precision: `bf16` or `fp32`.
    """

    def __init__(self, model: MultiTaskModel, looks: Mapping[str, Look], precision: str = "fp32") -> None:
        self.model = model
        self.looks = dict(looks)
        self.precision = precision

    @classmethod
    def of(cls, model: MultiTaskModel, assembly: Assembly) -> Passes:
        """As a recipe says: its views, and its precision where that is faster."""
        looks = {
            task: Look(assembly.target(task), part.flip_test, tuple(part.test_scales))
            for task, part in assembly.recipe.tasks.items()
        }
        return cls(model, looks, inference_precision(model.sharing, assembly.recipe.train.precision, model.mean.device))

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

    def _together(self, batches: Mapping[tuple[str, ...], Batch]) -> Iterable[Sequence[_View]]:
        """What is looked at, in calls of the model: of each batch one view at most, and all of one size.

        Tasks that share a pass have images of one size, but they may look at these at scales of their own.
        """
        calls: dict[tuple[torch.Size, int], list[_View]] = {}
        for tasks, batch in batches.items():
            numbers: Counter[torch.Size] = Counter()
            for view in self._views(tasks, batch.to(self.model.mean.device)):
                size = view[1].images.shape[2:]
                calls.setdefault((size, numbers[size]), []).append(view)
                numbers[size] += 1
        return calls.values()

    def _views(self, tasks: Sequence[str], batch: Batch) -> Iterator[_View]:
        """What is looked at, and by whom: at each scale the images, with their mirror images where all want these."""
        for scale in dict.fromkeys(scale for task in tasks for scale in self.looks[task].scales):
            wanting = [task for task in tasks if scale in self.looks[task].scales]
            mirroring = tuple(task for task in wanting if self.looks[task].flip)
            resized = batch if scale == 1 else _resized(batch, scale)
            if mirroring == tuple(wanting):
                yield mirroring, _joined(resized, _mirrored(resized))
                continue
            yield tuple(wanting), resized
            if mirroring:
                yield mirroring, _mirrored(resized)

    def _run(self, asked: Sequence[_View], views: Mapping[str, list[Views]]) -> None:
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
        target, head = self.looks[task].target, self.model.heads[task]
        if len(views) > 1 and isinstance(head, MergesViews):
            return head.merge_views([target.restored([view]) for view in views])
        return target.restored(views)


def _joined(one: Batch, other: Batch) -> Batch:
    images = torch.cat([one.images, other.images])
    return replace(one, images=images, placements=[*one.placements, *other.placements])


def _resized(batch: Batch, scale: float) -> Batch:
    rows, columns = (max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in batch.images.shape[-2:])
    images = F.interpolate(batch.images.float(), size=(rows, columns), mode="bilinear", antialias=True)
    return replace(batch, images=images, placements=[place.resized((rows, columns)) for place in batch.placements])


def _mirrored(batch: Batch) -> Batch:
    return replace(batch, images=batch.images.flip(-1), placements=[place.flipped() for place in batch.placements])
