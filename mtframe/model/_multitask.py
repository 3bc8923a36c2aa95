"""The model: a shared trunk, and a head and a loss for each task."""

# Shapes: B images, H height, W width.

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtframe.errors import CheckpointError

from ._sharing import by_task


class MultiTaskModel(nn.Module):
    """Images of several tasks to the outputs of their heads.

    Losses are part of it because they may have parameters of their own (class centres), which are trained,
    saved and averaged like all others.

    Args:
        sharing: Runs every task's images through the backbone (see `mtframe.kinds.Sharing`).
        heads: Head by task.
        losses: Loss by task.
        mean: What images in 0..1 are normalised with, a value per channel in `colour_order`.
        std: Likewise.
        colour_order: `RGB` or `BGR`: the order in which the backbone takes channels.
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
        colour_order: str = "RGB",
    ) -> None:
        super().__init__()
        self.sharing = sharing
        self.heads = by_task(heads)
        self.losses = by_task(losses)
        # For images in 0..255. Saved with the weights, which are of no use without: whoever reads the checkpoint
        # needs neither the backbone's own records nor the version of the library that keeps them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)
        self.colour_order = colour_order

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.heads)

    def forward(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """RGB images (B, 3, H, W) in 0..255, uint8 or float, by task, to the heads' outputs by task.

        Args:
            images: By task.
            lenders: Further tasks that give outputs, each with the task in `images` whose images it looks at.
        """
        lenders = lenders or {}
        maps = self.sharing({task: self._normalised(pixels) for task, pixels in images.items()}, lenders)
        return {task: self.heads[task](maps[task]) for task in (*images, *lenders)}

    def get_extra_state(self) -> Tensor:
        """The colour order, as a tensor since weights are kept as such."""
        return torch.tensor(list(self.colour_order.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the colour order of the weights that are loaded. Raises CheckpointError if it is none."""
        order = bytes(state.tolist()).decode("ascii", "replace")
        if order not in ("RGB", "BGR"):
            raise CheckpointError(f"weights of a model that takes colours as {order!r}; expected RGB or BGR")
        self.colour_order = order

    def _normalised(self, pixels: Tensor) -> Tensor:
        return ((pixels.flip(1) if self.colour_order == "BGR" else pixels) - self.mean) / self.std

    def loss(self, task: str, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The named loss terms of one task; the task's loss is their sum."""
        return self.losses[task](outputs, targets)
