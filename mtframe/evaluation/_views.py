"""Looking at images several times: mirrored, and at other sizes."""

# Shapes: B images, H height, W width.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from mtframe.data import Batch, Geometry

# Backbones and pyramids halve sizes up to five times.
_MULTIPLE = 32


def views_of(batch: Batch, flip: bool, scales: Sequence[float]) -> Iterator[Batch]:
    """The batch at each scale, and mirrored if so wanted; each knows its geometry.

    Args:
        batch: From a task's evaluation transform.
        flip: Whether to give each one's mirror image too.
        scales: Parts of its size; sides are rounded to multiples of 32.
    """
    for scale in scales:
        resized = batch if scale == 1 else _resized(batch, scale)
        yield resized
        if flip:
            yield _mirrored(resized)


def _resized(batch: Batch, scale: float) -> Batch:
    height, width = batch.images.shape[-2:]
    rows, columns = (max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (height, width))
    images = F.interpolate(batch.images.float(), size=(rows, columns), mode="bilinear", antialias=True)
    factor = batch.geometry.scale.new_tensor([columns / width, rows / height])
    geometry = Geometry(batch.geometry.scale * factor, batch.geometry.offset * factor, batch.geometry.size)
    return replace(batch, images=images, geometry=geometry)


def _mirrored(batch: Batch) -> Batch:
    width = batch.images.shape[-1]
    x, y = batch.geometry.offset.unbind(1)
    scale = batch.geometry.scale * batch.geometry.scale.new_tensor([-1.0, 1.0])
    geometry = Geometry(scale, torch.stack([width - x, y], dim=1), batch.geometry.size)
    return replace(batch, images=batch.images.flip(-1), geometry=geometry)
