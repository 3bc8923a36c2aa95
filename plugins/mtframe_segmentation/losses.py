"""Losses of the class of each pixel."""

# Shapes: B images, C classes, h and w of an input, h' and w' of the head's map, N = h' w' cells of it.

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.registry import did_you_mean

# The least divisor: the weights of no pixels add up to 0.
_LEAST = 1e-6


class PixelCrossEntropy(nn.Module):
    """Cross-entropy of each known pixel's class with the scores of the cell of the head's map that it lies in.

    Pixels are counted into cells and not scores resized to pixels: all of them count, thin things too, at a sixteenth
    of the memory with a map of stride 4.

    Args:
        info: Its `classes` are what class weights are named by.
        class_weights: Weight of a class's pixels, by the class's name; 1 where it is left out.
        dice: Weight of the Dice loss (V-Net, arXiv:1606.04797, section 3), which is one minus the overlap of each class
            that is there: it makes small classes count as much as large ones.

    Raises:
        RecipeError: An option is out of its range, or names no class.
    """

    target: ClassVar[str] = "mask"
    weights: Tensor

    def __init__(self, info: DataInfo, *, class_weights: Mapping[str, float] | None = None, dice: float = 0.0) -> None:
        super().__init__()
        given = dict(class_weights or {})
        if unknown := [name for name in given if name not in info.classes]:
            hint = did_you_mean(unknown[0], info.classes)
            raise RecipeError(f"class_weights: there is no class {unknown[0]!r} among {len(info.classes)}{hint}")
        if wrong := [name for name, weight in given.items() if weight < 0]:
            raise RecipeError(f"class_weights: must not be negative, got {given[wrong[0]]:g} of {wrong[0]!r}")
        if dice < 0:
            raise RecipeError(f"dice: must not be negative, got {dice:g}")
        self.dice = dice
        weights = torch.tensor([given.get(name, 1.0) for name in info.classes])
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`cross_entropy`, the weighted mean over the pixels whose class is known, and `dice`; 0 where none is.

        Args:
            outputs: `logits` (B, C, h', w').
            targets: `mask` (B, h, w) long, 255 where unknown.
        """
        _, classes, rows, columns = outputs["logits"].shape
        logits_BCN = outputs["logits"].float().flatten(2)
        pixels_BCN = count_pixels(targets["mask"], classes, (rows, columns))
        wanted_BCN = pixels_BCN * self.weights[:, None]
        entropy = -(wanted_BCN * logits_BCN.log_softmax(1)).sum() / wanted_BCN.sum().clamp(min=_LEAST)
        losses = {"cross_entropy": entropy}
        if self.dice:
            losses["dice"] = self.dice * dice_loss(logits_BCN.softmax(1), pixels_BCN)
        return losses


def count_pixels(mask: Tensor, classes: int, cells: tuple[int, int]) -> Tensor:
    """How many pixels of each class lie in each cell of a coarser map.

    Args:
        mask: (B, h, w) long, 255 where unknown; those pixels lie in no cell.
        classes: C.
        cells: Rows and columns of the map.

    Returns:
        (B, C, N) float, whole numbers.
    """
    rows, columns = (
        torch.arange(length, device=mask.device).mul(2).add(1).mul(count).div(2 * length, rounding_mode="floor")
        for length, count in zip(mask.shape[1:], cells, strict=True)
    )
    number = cells[0] * cells[1]
    # What is unknown goes into a class of its own, which is dropped.
    place = mask.clamp(max=classes).mul(number) + (rows[:, None] * cells[1] + columns)
    counts = torch.zeros(len(mask), (classes + 1) * number, device=mask.device)
    counts.scatter_add_(1, place.flatten(1), torch.ones((), device=mask.device).expand(place.flatten(1).shape))
    return counts.view(len(mask), classes + 1, number)[:, :classes]


def dice_loss(probabilities: Tensor, pixels: Tensor) -> Tensor:
    """One minus the Dice coefficient, the mean over the classes that the batch has.

    Args:
        probabilities: (B, C, N).
        pixels: (B, C, N) pixels of each class in each cell.
    """
    known = pixels.sum(1, keepdim=True)
    both = (probabilities * pixels).sum((0, 2))
    each = (probabilities.square() * known).sum((0, 2)) + pixels.sum((0, 2))
    there = pixels.sum((0, 2)) > 0
    return (1 - 2 * both / each.clamp(min=1)).masked_fill(~there, 0).sum() / there.sum().clamp(min=1)
