"""A head that finds lines row by row, and its loss."""

# Shapes: B images, C classes, h and w of a map, M lines (padded), S places along a line.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtframe.data import DataInfo
from mtframe.errors import RecipeError
from mtframe.kinds import FeatureSpec

from .lines import along, stacked

# Cells from a row to the next that a line may go sideways.
_SIDEWAYS = 1.6


class LineHead(nn.Module):
    """Whether a line of each class goes through each cell of the finest map, and where in it; linked row by row.

    Args:
        features: Maps of the backbone.
        info: Its `classes`.
        width: Channels of the hidden layer.
        threshold: Least probability of a cell, 0 to 1.

    Raises:
        RecipeError: An option is out of its range.
    """

    target: ClassVar[str] = "polylines"

    def __init__(
        self, features: Sequence[FeatureSpec], info: DataInfo, *, width: int = 32, threshold: float = 0.5
    ) -> None:
        super().__init__()
        if width < 1:
            raise RecipeError(f"width: must be 1 or more, got {width}")
        if not 0 <= threshold <= 1:
            raise RecipeError(f"threshold: must be 0 to 1, got {threshold:g}")
        self.stride, self.threshold = features[0].stride, threshold
        self.hidden = nn.Conv2d(features[0].channels, width, 3, padding=1)
        self.line = nn.Conv2d(width, len(info.classes), 1)
        self.shift = nn.Conv2d(width, 2, 1)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """`logits` (B, C, h, w), and `shift` (B, 2, h, w): from a cell's middle to the line in it, in cells."""
        hidden = functional.relu(self.hidden(maps[0]))
        return {"logits": self.line(hidden), "shift": self.shift(hidden).float().tanh()}

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """`points` (N, P, 2) in pixels of the input, `labels` (N,) and `scores` (N,), strongest first."""
        scores, shift = outputs["logits"].float().sigmoid().cpu(), outputs["shift"].float().cpu()
        return [self._lines(*each) for each in zip(scores, shift, bounds.cpu(), strict=True)]

    def _lines(self, scores: Tensor, shift: Tensor, bounds: Tensor) -> dict[str, Tensor]:
        found = []
        columns = scores.shape[2]
        peaks = functional.max_pool2d(scores[None], (1, 3), 1, (0, 1))[0]
        for label, (score, peak) in enumerate(zip(scores, peaks, strict=True)):
            going: list[list[tuple[float, float, float]]] = []
            for row in range(scores.shape[1]):
                for column in range(columns):
                    if score[row, column] < self.threshold or score[row, column] < peak[row, column]:
                        continue
                    x = (column + 0.5 + float(shift[0, row, column])) * self.stride
                    y = (row + 0.5 + float(shift[1, row, column])) * self.stride
                    if not (bounds[0] <= x <= bounds[2] and bounds[1] <= y <= bounds[3]):
                        continue
                    line = self._nearest(going, x, row)
                    line.append((x, y, float(score[row, column])))
            found += [(sum(s for *_, s in line) / len(line), label, line) for line in going if len(line) > 1]
        found.sort(key=lambda one: -one[0])
        return {
            "points": stacked([torch.tensor([[x, y] for x, y, _ in line]) for _, _, line in found]),
            "labels": torch.tensor([label for _, label, _ in found], dtype=torch.long),
            "scores": torch.tensor([score for score, _, _ in found]),
        }

    def _nearest(
        self, going: list[list[tuple[float, float, float]]], x: float, row: int
    ) -> list[tuple[float, float, float]]:
        """The line that goes on here, which may be a new one."""
        above = (row - 1) * self.stride
        near = [
            (abs(line[-1][0] - x), line)
            for line in going
            if abs(line[-1][0] - x) <= _SIDEWAYS * self.stride and line[-1][1] >= above - self.stride
        ]
        if near:
            return min(near, key=lambda one: one[0])[1]
        going.append([])
        return going[-1]


class LineLoss(nn.Module):
    """Cross-entropy of cells and the distance of the line in those that have one.

    Args:
        head: Has the stride.
        positive: Weight of a cell with a line against one without.

    Raises:
        RecipeError: `positive` is not above 0.
    """

    target: ClassVar[str] = "polylines"

    def __init__(self, head: LineHead, *, positive: float = 15.0) -> None:
        super().__init__()
        if positive <= 0:
            raise RecipeError(f"positive: must be above 0, got {positive:g}")
        self.stride, self.positive = head.stride, positive

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`line` and `shift`: means over the cells that count; 0 of none."""
        logits, shift = outputs["logits"].float(), outputs["shift"]
        lines, unsure, wanted = self._drawn(targets, logits.shape)
        counts = (targets["known"][:, None, None, None] & ~(unsure & ~lines)).float()
        entropy = functional.binary_cross_entropy_with_logits(logits, lines.float(), reduction="none")
        weight = counts * torch.where(lines, self.positive, 1.0)
        through = (lines.any(1, keepdim=True) & targets["known"][:, None, None, None]).float()
        off = (shift - wanted.where(through > 0, shift.detach())).abs() * through
        return {
            "line": (entropy * weight).sum() / weight.sum().clamp(min=1),
            "shift": off.sum() / through.sum().clamp(min=1),
        }

    def _drawn(self, targets: Mapping[str, Tensor], shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, h, w) cells with a sure and with an unsure line, and (B, 2, h, w) the mean place of lines in them."""
        batch, classes, rows, columns = shape
        places = along(targets["points"]) / self.stride
        drawn = places.new_zeros(2, batch, classes, rows * columns)
        sums, counts = places.new_zeros(batch, rows * columns, 2), places.new_zeros(batch, rows * columns, 1)
        cells = places.floor().long()
        inside = (cells >= 0).all(-1) & (cells[..., 0] < columns) & (cells[..., 1] < rows)
        index = (cells[..., 1].clamp(0, rows - 1) * columns + cells[..., 0].clamp(0, columns - 1)).flatten(1)
        for kind, its in enumerate((targets["sure"], ~targets["sure"])):
            used = (inside & (targets["valid"] & its)[..., None]).flatten(1).float()
            for label in range(classes):
                of_class = (targets["labels"] == label)[..., None].expand_as(inside).flatten(1).float()
                drawn[kind, :, label].scatter_add_(1, index, used * of_class)
            if kind == 0:
                middle = places - cells - 0.5
                sums.scatter_add_(1, index[..., None].expand(-1, -1, 2), middle.flatten(1, 2) * used[..., None])
                counts.scatter_add_(1, index[..., None], used[..., None])
        mean = (sums / counts.clamp(min=1)).transpose(1, 2).reshape(batch, 2, rows, columns)
        sure, unsure = (drawn > 0).reshape(2, batch, classes, rows, columns)
        return sure, unsure, mean
