"""What travels between data sets, transforms, heads and metrics."""

# Shapes: B images in a batch, H height, W width, N boxes.

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What a data set's labels mean; wired into heads, losses, transforms and metrics as `info`.

    Attributes:
        target: The kind of target. Heads, losses and metrics say which ones they speak in an attribute of the same
            name; assembling a mismatch is an error. In use: `identity` and `label` (one class, -1 if it is not
            known), `labels` (any of the classes: (C,) 0 or 1, NaN if it is not known), `value` (numbers, NaN if
            not known), `boxes`.
        classes: Name of each class, in label order: label `i` is `classes[i]`. For `value`, of each number.
    """

    target: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DecodeSize:
    """How large an image must at least be decoded, if it is that large: what a transform says and a reader uses.

    Attributes:
        shorter: Pixels of its shorter side.
        longer: Pixels of its longer side.
    """

    shorter: int = 1
    longer: int = 1


@dataclass(slots=True)
class Sample:
    """One image with its labels, as a data set gives it.

    Attributes:
        image: (3, H, W) uint8, RGB. May be decoded smaller than `size` (JPEG scaling).
        target: Labels by name, each a tensor; coordinates in pixels of the **original** image.
        size: (height, width) of the original image in pixels.
        index: Position in the data set.
        id: What a person would recognise it by: a path relative to the data set's root, or an image id.
    """

    image: Tensor
    target: dict[str, Tensor]
    size: tuple[int, int]
    index: int = 0
    id: str = ""

    def without_image(self) -> Sample:
        """The same sample without its pixels: what a metric needs, and cheap to send between processes."""
        return replace(self, image=torch.empty(0, dtype=torch.uint8))


@dataclass(slots=True)
class Geometry:
    """How each image of a batch came out of its original: `input = original * scale + offset`.

    Attributes:
        scale: (B, 2) float, x and y.
        offset: (B, 2) float, x and y, in pixels of the network's input.
        size: (B, 2) long, height and width of the original in pixels.
    """

    scale: Tensor
    offset: Tensor
    size: Tensor

    def to_original(self, boxes: Tensor, image: int) -> Tensor:
        """Maps (N, 4) XYXY boxes of the network's input to pixels of original `image`, clipped to it.

        Boxes of a mirrored image (negative x scale) come out the right way round.
        """
        scale = self.scale[image].to(boxes).repeat(2)
        offset = self.offset[image].to(boxes).repeat(2)
        height, width = self.size[image].tolist()
        limit = boxes.new_tensor([width, height, width, height])
        corners = ((boxes - offset) / scale).unflatten(1, (2, 2))
        return torch.cat([corners.amin(1), corners.amax(1)], dim=1).clamp(min=0).minimum(limit)

    def points_to_original(self, points: Tensor, image: int) -> Tensor:
        """Maps (N, 2) x and y in the network's input to pixels of original `image`; they may lie outside of it.

        Points of a mirrored image (negative x scale) come out where they are in the original: what was to the left
        there is so again, so whoever tells left from right has to exchange them himself.
        """
        return (points - self.offset[image].to(points)) / self.scale[image].to(points)

    def to(self, device: torch.device | str) -> Geometry:
        """The same on another device."""
        return Geometry(self.scale.to(device), self.offset.to(device), self.size.to(device))


@dataclass(slots=True)
class Batch:
    """What a transform makes of samples, and what the model and the loss are given.

    Attributes:
        images: (B, 3, H, W) uint8, RGB. The model normalises on its own device.
        targets: Labels by name, each (B, ...); ragged ones padded, with a boolean mask beside them.
        geometry: How each image came out of its original.
        samples: The samples without their pixels, in evaluation; empty in training.
        skipped: Paths of images that could not be read and were replaced by the next ones.
        also: By task, the labels that further tasks have for these images; see `images` in a task's recipe.
    """

    images: Tensor
    targets: dict[str, Tensor]
    geometry: Geometry
    samples: list[Sample] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    also: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory (called by torch's DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Any) -> Batch:
        geometry = Geometry(change(self.geometry.scale), change(self.geometry.offset), self.geometry.size)
        targets = {name: change(tensor) for name, tensor in self.targets.items()}
        also = {task: {name: change(tensor) for name, tensor in more.items()} for task, more in self.also.items()}
        return replace(self, images=change(self.images), targets=targets, geometry=geometry, also=also)


def to_uint8(pixels: Tensor) -> Tensor:
    """Float pixels in 0..255, and a little beyond, rounded and clipped to uint8; changes `pixels`."""
    # By way of int16, which takes a quarter of the time of the direct conversion on a CPU.
    return pixels.round_().clamp_(0, 255).to(torch.int16).to(torch.uint8)
