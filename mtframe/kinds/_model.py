"""Contracts of what the model is made of: backbones, sharing schemes, heads and losses."""

# Shapes: B images, C channels, H height, W width, N things in an image.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature map of a backbone: its name, its channels and its stride in pixels of the input."""

    name: str
    channels: int
    stride: int


class Backbone(Protocol):
    """Images to feature maps; a `torch.nn.Module`.

    Wired: `member` (for a family: what follows `family/` in the name), `size` (the largest square input in pixels
    that the tasks ask for), `restoring` (True where a run's trained weights are loaded right after, so that
    pretrained ones need not be fetched). All are optional to take. Optional: `HasColourOrder`, `TellsPretraining`,
    `BuiltForSize`, `NamesLayers`; `Family`, `DescribesMembers`, `HasExampleMember`.

    Attributes:
        features: The maps that `forward` returns, finest first.
        stages: Parameter and module name prefixes of each stage, input first. Every parameter and buffer of the
            backbone is under exactly one prefix. Freezing and partial sharing cut between stages.
        mean, std: What an image in 0..1 is normalised with, a channel each, in its colour order.
    """

    features: tuple[FeatureSpec, ...]
    stages: tuple[tuple[str, ...], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """(B, 3, H, W) normalised float images to one (B, C, H / stride, W / stride) map per feature (NCHW)."""
        ...


@runtime_checkable
class HasColourOrder(Protocol):
    """A backbone whose weights were not trained on RGB images: `"BGR"`."""

    colour_order: str


@runtime_checkable
class BuiltForSize(Protocol):
    """A backbone that may take images of the size only that it was built for.

    Attributes:
        size: Side of the square images, in pixels. Images of that size are tried where it refuses others, to find
            where its stages end.
    """

    size: int


@runtime_checkable
class NamesLayers(Protocol):
    """A backbone that says what its layers are, where learning rates fall towards the input (`layer_decay`).

    Of one that does not, these are its stages.

    Attributes:
        lr_layers: Parameter name prefixes of each layer, input first. No parameter is under two; what is under none is
            new, and has the rate of the heads.
    """

    lr_layers: tuple[tuple[str, ...], ...]


@runtime_checkable
class TellsPretraining(Protocol):
    """A backbone whose weights have learned from other data than the recipe's."""

    @classmethod
    def pretraining(cls, member: str | None, **options: Any) -> str | None:
        """From which data with these options, in words, as "pretrained weights of timm/resnet18"; None: from none."""
        ...


class Sharing(Protocol):
    """Runs every task's images through the backbone; a `torch.nn.Module`.

    Wired: `backbone`; `groups`: tuples of task names whose images always have one size, so that they can be
    concatenated, e.g. `(("faces", "people"), ("objects",))`; together, all tasks.

    One that opens `mtframe.model.rows_of` around each pass through what its tasks share lets balancers of gradients
    work in one backward pass. Optional: `NamesShared`, `TakesOver`.

    Several threads may call it at once: what belongs to one pass is not set on it (see `mtframe.model.PerPass`).

    Attributes:
        features: What heads are given: the feature maps as the tasks see them.
    """

    features: tuple[FeatureSpec, ...]

    def __call__(
        self, images: Mapping[str, Tensor], lenders: Mapping[str, str] | None = None
    ) -> dict[str, Sequence[Tensor]]:
        """Normalised images (B, 3, H, W) by task to feature maps by task.

        `lenders` names further tasks that get maps, each with the task whose images it looks at: what both run
        through is computed once.
        """
        ...


@runtime_checkable
class NamesShared(Protocol):
    """A sharing scheme of whose parameters some are one task's alone."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that several tasks use."""
        ...


@runtime_checkable
class TakesOver(Protocol):
    """A sharing scheme with tensors that have a place for each task, in training that starts from other tasks' run."""

    def taken_over(self, name: str, tensor: Tensor, tasks: Sequence[str], like: Mapping[str, str]) -> Tensor:
        """What becomes of the run's tensor, which has another shape than this model's.

        Args:
            name: Of the tensor in this model.
            tensor: The run's.
            tasks: The run's tasks.
            like: By task that the run did not have, the one that it starts as a copy of.
        """
        ...


class Head(Protocol):
    """Feature maps to one task's outputs; a `torch.nn.Module`.

    Wired: `features` (tuple of FeatureSpec), `info` (DataInfo of the task's training data), `restoring` (True where a
    run's trained weights are loaded right after, so that a head with weights of its own need not fetch or read them).
    Optional: `MergesViews`, `TellsUnlearnable`.
    """

    target: ClassVar[str | tuple[str, ...]]

    def __call__(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Static shapes and no per-image loop: what is exported is this."""
        ...

    def predict(self, outputs: Mapping[str, Tensor], bounds: Tensor) -> list[dict[str, Tensor]]:
        """One prediction an image, in the form that its kind of target documents; coordinates in pixels of the input.

        Args:
            outputs: What the head gave.
            bounds: (B, 4) float, XYXY: where each whole original lies in the input, in its pixels. What is around it is
                padding; it reaches beyond the input where that shows a part.
        """
        ...


@runtime_checkable
class MergesViews(Protocol):
    """A head with a way of its own to make one prediction of several views; else its kind of target merges them."""

    def merge_views(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One image's predictions, each in pixels of the original, to one of the same form."""
        ...


class Loss(Protocol):
    """Outputs and targets to named scalars; a `torch.nn.Module` (its parameters are trained, e.g. class centres).

    What is not known of an image takes no part: its kind of target says how that looks. Wired: `head` (the built head),
    `info`, `restoring` (as of a head: for a loss that compares by a network of its own). Optional: `FollowsProgress`.
    """

    target: ClassVar[str | tuple[str, ...]]

    def __call__(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name; the task's loss is their sum. Finite for images without targets."""
        ...


@runtime_checkable
class FollowsProgress(Protocol):
    """A loss or a transform that is not the same all through a training: its strength grows, or it ends before it.

    A transform is told in loader processes, before each of its batches: steps come in any order.
    """

    def set_progress(self, fraction: float) -> None:
        """Called before each step with the part of training that is done, from 0 to below 1."""
        ...
