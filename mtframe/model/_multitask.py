"""The model: shared trunk, one head and one loss a task."""

# Shapes: B images, H height, W width.

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtframe.errors import RecipeError


class MultiTaskModel(nn.Module):
    """Images of several tasks to the outputs of their heads.

    Losses are part of it because they may have parameters of their own (class centres), which are trained,
    saved and averaged like all others.

    Args:
        sharing: Runs every task's images through the backbone (see `mtframe.kinds.Sharing`).
        heads: Head by task.
        losses: Loss by task.
        mean: What images in 0..1 are normalised with, a value per RGB channel.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        sharing: nn.Module,
        heads: Mapping[str, nn.Module],
        losses: Mapping[str, nn.Module],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.sharing = sharing
        self.heads = _by_task(heads)
        self.losses = _by_task(losses)
        # For images in 0..255. Not saved: they belong to the backbone, which brings them again.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.heads)

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Images (B, 3, H, W) in 0..255, uint8 or float, by task, to the heads' outputs by task."""
        normalised = {task: (pixels - self.mean) / self.std for task, pixels in images.items()}
        maps = self.sharing(normalised)
        return {task: self.heads[task](maps[task]) for task in images}

    def loss(self, task: str, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The named loss terms of one task; the task's loss is their sum."""
        return self.losses[task](outputs, targets)


def _by_task(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    try:
        return nn.ModuleDict(dict(modules))
    except KeyError as error:
        raise RecipeError(f"tasks: choose another name for the task; torch reserves it ({error.args[0]})") from None
