"""What travels between data sets, transforms, heads and metrics."""

# Shapes: B images in a batch, H height, W width of an image, h and w of an input.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ._placement import Placement


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """How often each class occurs among the training images.

    Attributes:
        positive: By class, in label order, the images that are known to be of it.
        negative: Those that are known not to be of it.
    """

    positive: tuple[int, ...]
    negative: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What a data set's labels mean; wired into targets, heads, losses and metrics as `info`.

    Attributes:
        target: The kind of target: the name of a component of kind `target`. Heads, losses and metrics say which ones
            they work on in an attribute of the same name; assembling a mismatch is an error.
        classes: Name of each class, in label order: label `i` is `classes[i]`. Of numbers, the name of each.
        counts: Of training data that knows it, how often each class occurs; what labels mean does not depend on it, and
            two are equal whatever it says.
    """

    target: str
    classes: tuple[str, ...]
    counts: ClassCounts | None = field(default=None, compare=False)


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
class Batch:
    """Inputs of the network with all that is known of them: what the model and the losses are given.

    Attributes:
        images: (B, 3, h, w) uint8, RGB. The model normalises on its own device.
        targets: By task that knows something of these images, what its kind of target has collated: tensors (B, ...) by
            name. Empty in evaluation.
        placements: Where each image lies in its input; empty in training.
        samples: By task, the samples without their pixels; None of an image that the task's split does not have. Empty
            in training.
        skipped: Why images could not be read; in training others stand in for them. There also why labels of them could
            not, which are unknown to their task.
        skipped_too: In evaluation, by task that does not read the images itself, why those that its split has, or its
            labels of them, could not be read.
    """

    images: Tensor
    targets: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    placements: list[Placement] = field(default_factory=list)
    samples: dict[str, list[Sample | None]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    skipped_too: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def bounds(self) -> Tensor:
        """(B, 4) float, XYXY: where the whole original lies in each input, in its pixels; it may reach beyond."""
        return torch.tensor([placement.bounds for placement in self.placements], dtype=torch.float32)

    def pin_memory(self) -> Batch:
        """The same in page-locked memory (called by torch's DataLoader)."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        targets = {
            task: {name: change(tensor) for name, tensor in target.items()} for task, target in self.targets.items()
        }
        return replace(self, images=change(self.images), targets=targets)


def to_uint8(pixels: Tensor) -> Tensor:
    """Float pixels in 0..255, and a little beyond, rounded and clipped to uint8; changes `pixels`."""
    # By way of int16, which takes a quarter of the time of the direct conversion on a CPU.
    return pixels.round_().clamp_(0, 255).to(torch.int16).to(torch.uint8)
