"""What the model and its losses are given of a step's batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mtframe.data import Batch


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """One batch of each task, sorted by who uses its images.

    Attributes:
        images: (B, 3, H, W) by task: the first of those that know something of them.
        lenders: The other tasks that do, each with the one whose images it uses.
        targets: By task.
    """

    images: dict[str, Tensor]
    lenders: dict[str, str]
    targets: dict[str, dict[str, Tensor]]

    @classmethod
    def of(cls, batches: Mapping[str, Batch]) -> ModelInputs:
        """From batches of each of which at least one task knows something."""
        inputs = cls({}, {}, {})
        for batch in batches.values():
            owner, *others = batch.targets
            inputs.images[owner] = batch.images
            inputs.lenders.update(dict.fromkeys(others, owner))
            inputs.targets.update(batch.targets)
        return inputs
