"""The kinds of component and what each must give: the contract with plugin authors.

A component is a class and one line under its kind's entry-point group in `pyproject.toml`. Parameters of its
constructor before `*` are wired by the framework, by name; those after `*` are the recipe's options. A component
asks only for what it needs: each kind lists what can be wired.

The protocols are structural: a class fits without inheriting anything. What observes a training (kind `hooks`) has no
protocol but its hooks, `mtframe.hooks.HookSpecs`. No torch is imported here.

A component of any kind may also have

- the static method `migrate(options, version) -> options`: the options (a dict of plain YAML values) of a run that was
  trained with `version` of its distribution, made those of today;
- the class attribute `examples`: options by a name, with each of which the conformance kit (`mtframe.testing`) tries
  it; without it the kit tries the defaults.
"""

# Shapes: B images, C channels, H height, W width, N things in an image.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mtframe.data import Batch, DataInfo, DecodeSize, Geometry, Sample


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature map of a backbone: its name, its channels and its stride in pixels of the input."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of component.

    Attributes:
        name: As written on the command line (`mtframe plugins show head dense`).
        wired: Names of the constructor parameters that the framework can supply.
        summary: One line for listings.
        gives: Attributes and methods that a built component has at least; `a or b` for one of several.
        targets: Whether its components say which kind of target they speak (attribute `target`).
    """

    name: str
    wired: tuple[str, ...]
    summary: str
    gives: tuple[str, ...]
    targets: bool = False

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"mtframe.{self.name}"

    def missing(self, part: object) -> list[str]:
        """What of `gives` a built component does not have."""
        return [names for names in self.gives if not any(hasattr(part, name) for name in names.split(" or "))]


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "backbone",
            ("member", "size", "restoring"),
            "turns images into feature maps that all tasks share",
            ("features", "stages", "mean", "std", "__call__"),
        ),
        Kind(
            "sharing",
            ("backbone", "groups"),
            "what of the backbone each task runs through",
            ("features", "__call__"),
        ),
        Kind(
            "head",
            ("features", "info"),
            "turns feature maps into one task's outputs",
            ("predict", "__call__"),
            targets=True,
        ),
        Kind("loss", ("head", "info"), "compares outputs with targets", ("__call__",), targets=True),
        Kind(
            "dataset",
            ("split",),
            "reads images and labels from disk",
            ("info", "__len__", "__getitem__"),
            targets=True,
        ),
        Kind(
            "transform",
            ("size", "train", "info"),
            "makes a batch of samples; augments it in training",
            ("fixed_size", "decode_size", "__call__"),
            targets=True,
        ),
        Kind(
            "metric",
            ("dataset", "info", "outside"),
            "scores predictions by the field's protocol",
            ("primary", "higher_is_better", "update", "compute", "reset", "merge"),
            targets=True,
        ),
        Kind(
            "balancer",
            ("member", "tasks"),
            "makes one loss of the tasks' losses, or weighs their gradients",
            ("__call__ or weigh or combine",),
        ),
        Kind("preset", (), "the parts that a task uses where the recipe names none", ()),
        Kind("hooks", (), "observes a training: loggers, early stopping, notifiers", ()),
    )
}


class Backbone(Protocol):
    """Images to feature maps; a `torch.nn.Module`.

    May also have `colour_order` (`"RGB"`, or `"BGR"` for weights that were trained on BGR images), and the class
    method `pretraining(member, **options) -> str | None`: which data besides the recipe's its weights have learned
    from with these options, in words, e.g. "pretrained weights of timm/resnet18".

    Wired: `member` (for a family: what follows `family/` in the name), `size` (the largest square input in pixels
    that the tasks ask for), `restoring` (True where a run's trained weights are loaded right after, so that
    pretrained ones need not be fetched). All are optional to take.

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
class Family(Protocol):
    """What a component adds when its name stands for many: `timm/resnet18` is member `resnet18` of `timm`.

    May also have the class attribute `example`, a small member, with which the conformance kit tries it, and the class
    method `describe_member(member) -> dict`, what `mtframe plugins show` tells of a member; it raises RecipeError for
    one that is not there.
    """

    @classmethod
    def members(cls, pattern: str, *, pretrained: bool = False) -> list[str]:
        """Names of members that match a shell pattern, without the family's own name in front."""
        ...


class Sharing(Protocol):
    """Runs every task's images through the backbone; a `torch.nn.Module`.

    Wired: `backbone`; `groups`: tuples of task names whose images always have one size, so that they can be
    concatenated, e.g. `(("faces", "people"), ("objects",))`; together, all tasks.

    One that opens `mtframe.model.rows_of` around each pass through what its tasks share lets balancers of gradients
    work in one backward pass. It may also have `shared_parameters() -> iterator`: those that several tasks use, where
    these are not all. One that has tensors with a place for each task may have `taken_over(name, tensor, tasks, like)
    -> tensor`, for training that starts from a run of this scheme with other tasks: the run's tensor of another shape,
    for this model's `name`; the run's tasks; by task that the run did not have, the one that it starts as a copy of.

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


class Head(Protocol):
    """Feature maps to one task's outputs; a `torch.nn.Module`.

    Wired: `features` (tuple of FeatureSpec), `info` (DataInfo of the task's training data).

    A head that can look at an image several times, mirrored and at other sizes, also has
    `merge_views(predictions) -> prediction`: one image's predictions, in pixels of the original image, made one.
    """

    target: ClassVar[str | tuple[str, ...]]

    def __call__(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Static shapes and no per-image loop: what is exported is this."""
        ...

    def predict(self, outputs: Mapping[str, Tensor], geometry: Geometry) -> list[dict[str, Tensor]]:
        """One prediction an image, coordinates in pixels of the original image.

        Known keys, which the framework can draw and write: `boxes` (N, 4) XYXY with `scores` (N,) and
        `labels` (N,); `embedding` (D,) of unit length; `probabilities` (C,) of the classes, 0..1; `values` (K,).
        """
        ...


class Loss(Protocol):
    """Outputs and targets to named scalars; a `torch.nn.Module` (its parameters are trained, e.g. class centres).

    What is not known of an image (see `DataInfo.target`) takes no part.

    Wired: `head` (the built head), `info`. A loss whose strength changes during training also has
    `set_progress(fraction: float)`, called before each step with the part of training done, 0..1.
    """

    target: ClassVar[str | tuple[str, ...]]

    def __call__(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name; the task's loss is their sum. Finite for images without targets."""
        ...


class Dataset(Protocol):
    """Images and labels of one split; a map-style data set, picklable.

    Wired: `split` (`"train"`, `"val"`, ...; the splits it has are in `splits`). May also have the static methods
    `download(root)` and `synthesize(root, *, seed=0, ...)`, behind `mtframe data`, and the methods

    - `target_of(id) -> dict[str, Tensor]`: the target of the image whose `Sample.id` another data set gives, without
      reading the image; unknown values (see `DataInfo.target`) where there is none. It makes the data set one that
      can label another task's images, if its targets are of whole images: of the kinds identity, label, labels or
      value, or of another kind where the class attribute `whole_image` is True.
    - `order(rng) -> (len,) int array`: the order of one epoch, for batches that must hold several images of a kind.

    Attributes:
        splits: The splits that it may be asked for.
        info: What its labels mean.
        decode_size: None for full size. The framework sets it to what the transform wants; images may be decoded
            smaller than they are, but not below it.
    """

    target: ClassVar[str | tuple[str, ...]]
    splits: ClassVar[tuple[str, ...]]
    info: DataInfo
    decode_size: DecodeSize | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample; raises IndexError past the end and BadImageError for a file that cannot be read."""
        ...


class Transform(Protocol):
    """Samples to one batch of one size: cropping, resizing, padding, augmenting, collating.

    Wired: `size` (pixels of the square input), `train` (augment or not), `info`. Works on the whole batch, so that
    what can run on the batch does, and images can be mixed.

    May also have the class method `outside(**options) -> str | None`: what it knows from data besides the recipe's, in
    words (landmarks of faces); and `mixes`: True if an image of a batch may be made of several samples, as by mosaic
    or mixup.

    Attributes:
        fixed_size: False if the size changes from batch to batch (multi-scale training).
        decode_size: How large an image is worth decoding, or None for full size; passed on to the data set.
    """

    target: ClassVar[str | tuple[str, ...]]
    fixed_size: bool
    decode_size: DecodeSize | None

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Batch:
        """At least one sample. All randomness comes from `rng` or torch's global generator; both are seeded.

        Raises BadImageError if nothing can be made of one of the images, which then is left out.
        """
        ...


class Metric(Protocol):
    """Scores a split by the field's own protocol.

    Wired: `dataset` (the evaluated split), `info`, `outside` (what else than the task's own training data the model
    has learned from, in words). May also have `notes`, sentences to stand below the scores, and the method
    `details() -> Sequence[Curves | Matrix | Bars]` of `mtframe.evaluation`: what does not fit into a number.

    Attributes:
        primary: The value that `best` checkpoints follow, a key of `compute()`.
        higher_is_better: Whether a larger primary value is better.
    """

    target: ClassVar[str | tuple[str, ...]]
    primary: str
    higher_is_better: bool

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds predictions (CPU) and the samples (without pixels) they belong to, in any order."""
        ...

    def compute(self) -> dict[str, float]:
        """Values by name; NaN stands for "cannot be resolved with this data" and is shown as n/a."""
        ...

    def reset(self) -> None:
        """Forgets everything."""
        ...

    def merge(self, other: Any) -> None:
        """Takes over what another instance (another process) has seen."""
        ...


class Balancer(Protocol):
    """The tasks' losses to the one that is differentiated.

    Wired, here and in the other sort: `tasks` (their names); for a family, `member`.

    Of either sort: what it remembers from step to step is in `state_dict()` and `load_state_dict(state)`, of tensors,
    numbers and text, with which a run resumes exactly. It draws from torch's global generator only, which is seeded at
    each step. One that is a `torch.nn.Module` has its parameters trained with the model's, without weight decay. A
    count `failures`, of a solver that did not converge, is told at the end of training.
    """

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar."""
        ...


class GradientBalancer(Protocol):
    """The other sort of balancer: weighs the tasks' gradients of what they share. Wired: `tasks` (their names).

    Heads and losses keep the gradient of their own task's loss. Tasks that take no part in a step are left out, and a
    step of one task is not balanced. Where a step accumulates several batches, each is balanced.

    Instead of `weigh` it may have `combine(gradients, losses) -> Tensor`, (T, P) gradients to (P,), in the parameters'
    precision and on their device. It may also have the attributes

    - `weighs_heads`: True if the weights are meant for the heads' and losses' gradients too (what a sharing scheme
      keeps for one task has that task's own gradient in any case);
    - `present`: names of the tasks of the step, which is set before each call.
    """

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients and (T,) losses to (T,) weights, in the order of `tasks`.

        All float64 on the CPU, detached.
        """
        ...


class Preset(Protocol):
    """A preset: names (or name and options) of parts, taken where the recipe leaves them out.

    Plain class attributes and no heavy import, so that reading a recipe stays fast.
    """

    dataset: ClassVar[str]
    transform: ClassVar[str | dict[str, Any]]
    head: ClassVar[str | dict[str, Any]]
    loss: ClassVar[str | dict[str, Any]]
    metrics: ClassVar[tuple[str | dict[str, Any], ...]]
    size: ClassVar[int]
    batch_size: ClassVar[int]
    flip_test: ClassVar[bool]
