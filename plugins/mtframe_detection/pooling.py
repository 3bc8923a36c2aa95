"""Position-sensitive pooling: each part of a box is read from maps of its own (R-FCN, arXiv:1605.06409, eq. 1)."""

# Shapes: B images, K boxes of each, C channels, H and W of the map, N bins a side, S samples a side of a bin.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def position_sensitive_pool(maps: Tensor, boxes: Tensor, bins: int, stride: float, samples: int = 2) -> Tensor:
    """Means over `bins` × `bins` parts of boxes, each part's from its own channels.

    Gives what `torchvision.ops.ps_roi_align` gives with `samples` as its sampling ratio, and the same gradient for
    the maps (none for the boxes). Torchvision's operator cannot be exported; this is one `grid_sample`, in which
    bins stand as images of their own.

    Args:
        maps: (B, C · bins · bins, H, W): for each channel the bins, row by row.
        boxes: (B, K, 4) XYXY in pixels of the input.
        bins: Bins a side.
        stride: Pixels from cell to cell of the maps.
        samples: Bilinear samples a side of a bin.

    Returns:
        (B, K, C, bins, bins).
    """
    images, (height, width) = len(maps), maps.shape[-2:]
    folded = maps.unflatten(1, (-1, bins, bins)).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    x_BKNS, y_BKNS = _samples(boxes.detach().to(maps) / stride, bins, samples)
    shape = (images, bins, bins, boxes.shape[1], samples, samples)
    x = x_BKNS.transpose(1, 2)[:, None, :, :, None, :].expand(shape)
    y = y_BKNS.transpose(1, 2)[:, :, None, :, :, None].expand(shape)
    # Where it is further than a cell outside of the map, a sample is 0; nearer, it has the value of the border.
    seen = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    values = F.grid_sample(
        folded, grid.flatten(0, 2).flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=False
    )
    values = values.unflatten(2, (-1, samples)) * seen.flatten(0, 2)[:, None]
    return values.mean(dim=(-2, -1)).unflatten(0, (images, bins, bins)).permute(0, 4, 3, 1, 2)


def _samples(boxes: Tensor, bins: int, samples: int) -> tuple[Tensor, Tensor]:
    """Columns and rows (B, K, N, S) of the samples of boxes in cells, where 0 is the middle of the first cell."""
    steps = torch.arange(bins * samples, device=boxes.device, dtype=boxes.dtype).view(bins, samples)
    part_NS = (steps + 0.5) / (bins * samples)
    x1, y1, x2, y2 = (boxes - 0.5)[..., None, None].unbind(dim=2)
    return x1 + part_NS * (x2 - x1), y1 + part_NS * (y2 - y1)
