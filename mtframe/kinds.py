"""The kinds of component and what each must give: the contract with plugin authors.

A component is a class and one line under its kind's entry-point group in `pyproject.toml`. Parameters of its
constructor before `*` are wired by the framework, by name; those after `*` are the recipe's options. A component
asks only for what it needs: each kind lists what can be wired.

The protocols are structural: a class fits without inheriting anything. What observes a training (kind `hooks`) has no
protocol but its hooks, `mtframe.hooks.HookSpecs`. No torch is imported here.

What a component may do besides has a small protocol each: its kind's `abilities`.
"""

# Shapes: B images, C channels, H height, W width, N things in an image.

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from mtframe.data import DataInfo, DecodeSize, Inputs, Placement, Sample
    from mtframe.evaluation import Bars, Curves, Matrix
    from mtframe.marks import Mark


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

    @property
    def contracts(self) -> tuple[type, ...]:
        """The protocols of which a component fits one; none where something else than a protocol says what it has."""
        return _CONTRACTS.get(self.name, ())

    @property
    def abilities(self) -> tuple[type, ...]:
        """The protocols that a component may fit besides."""
        return _ABILITIES.get(self.name, _ANY)

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
            "target",
            ("info",),
            "one kind of label: how it follows its image, is collated, restored, written and drawn",
            ("mixes", "unknown", "known", "placed", "collate", "restored", "plain", "label_marks", "marks", "perfect"),
        ),
        Kind(
            "transform",
            ("size", "train"),
            "makes inputs of the network out of images; augments them in training",
            ("fixed_size", "decode_size", "__call__"),
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
        Kind("schedule", ("lengths", "every"), "says which tasks train in which step", ("steps_per_epoch", "draws")),
        Kind("preset", (), "the parts that a task uses where the recipe names none", ()),
        Kind("hooks", (), "observes a training: loggers, early stopping, notifiers", ()),
    )
}


class Backbone(Protocol):
    """Images to feature maps; a `torch.nn.Module`.

    Wired: `member` (for a family: what follows `family/` in the name), `size` (the largest square input in pixels
    that the tasks ask for), `restoring` (True where a run's trained weights are loaded right after, so that
    pretrained ones need not be fetched). All are optional to take. Optional: `HasColourOrder`, `TellsPretraining`;
    `Family`, `DescribesMembers`, `HasExampleMember`.

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
    """A component whose name stands for many: `timm/resnet18` is member `resnet18` of `timm`."""

    @classmethod
    def members(cls, pattern: str, *, pretrained: bool = False) -> list[str]:
        """Names of members that match a shell pattern, without the family's own name in front."""
        ...


@runtime_checkable
class DescribesMembers(Protocol):
    """A family that takes more members than it lists, and can say something of each."""

    @classmethod
    def describe_member(cls, member: str) -> dict[str, Any]:
        """What `mtframe plugins show` tells of a member. Raises RecipeError for one that is not there."""
        ...


@runtime_checkable
class HasExampleMember(Protocol):
    """A family that says with which member the conformance kit tries it; else with the first."""

    example: ClassVar[str]


@runtime_checkable
class HasColourOrder(Protocol):
    """A backbone whose weights were not trained on RGB images: `"BGR"`."""

    colour_order: str


@runtime_checkable
class TellsPretraining(Protocol):
    """A backbone whose weights have learned from other data than the recipe's."""

    @classmethod
    def pretraining(cls, member: str | None, **options: Any) -> str | None:
        """From which data with these options, in words, as "pretrained weights of timm/resnet18"; None: from none."""
        ...


@runtime_checkable
class Migrates(Protocol):
    """A component whose options have changed since an earlier version."""

    @staticmethod
    def migrate(options: dict[str, Any], version: str) -> dict[str, Any]:
        """Options (plain YAML values) of a run that was trained with that version of its distribution, made today's."""
        ...


@runtime_checkable
class HasExamples(Protocol):
    """A component that says with which options the conformance kit tries it; else with its defaults.

    Attributes:
        examples: Options by a name.
    """

    examples: ClassVar[Mapping[str, Mapping[str, Any]]]


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

    Wired: `features` (tuple of FeatureSpec), `info` (DataInfo of the task's training data). Optional: `MergesViews`.
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
    `info`. Optional: `FollowsProgress`.
    """

    target: ClassVar[str | tuple[str, ...]]

    def __call__(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name; the task's loss is their sum. Finite for images without targets."""
        ...


@runtime_checkable
class FollowsProgress(Protocol):
    """A loss whose strength changes during training."""

    def set_progress(self, fraction: float) -> None:
        """Called before each step with the part of training that is done, 0..1."""
        ...


class Samples(Protocol):
    """Samples by their position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample; raises IndexError past the end and BadImageError for a file that cannot be read."""
        ...


class Dataset(Samples, Protocol):
    """Images and labels of one split; a map-style data set, picklable.

    Wired: `split` (`"train"`, `"val"`, ...; the splits it has are in `splits`). Optional: `LabelsImages`,
    `OrdersEpochs`, `Downloads`, `Synthesizes`, `HasNotes`.

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


@runtime_checkable
class LabelsImages(Protocol):
    """A data set that can label images which another one reads: those of a task that lends them."""

    def ids(self) -> Sequence[str]:
        """`Sample.id` of each of its images, by position, without reading one."""
        ...

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The target of the image of that `Sample.id`, as its own sample has it; the unknown one where there is none.

        Args:
            id: Of the image.
            size: Its (height, width) in pixels.

        Raises:
            DataError: The labels are of an image of another size.
        """
        ...


@runtime_checkable
class OrdersEpochs(Protocol):
    """A data set whose batches must hold several images of a sort."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """(len,) int: the positions of one epoch in the order of training."""
        ...


@runtime_checkable
class Downloads(Protocol):
    """A data set that fetches itself: `mtframe data download NAME ROOT`."""

    @staticmethod
    def download(root: Path) -> Mapping[str, int] | None:
        """Fetches everything into a folder; what it returns is printed as counts. `mtframe.download` helps."""
        ...


@runtime_checkable
class Synthesizes(Protocol):
    """A data set that makes data of its own format: `mtframe data synthesize NAME ROOT`, and for the conformance kit.

    `synthesize` may have further parameters, all keyword-only and with a default: they are options of that command.
    """

    @staticmethod
    def synthesize(root: Path, *, seed: int = 0) -> Mapping[str, int] | None:
        """Renders data into a folder; what it returns is printed as counts. `mtframe.synthesis` helps."""
        ...


@runtime_checkable
class HasNotes(Protocol):
    """A data set or a metric that has something to say besides.

    Attributes:
        notes: Sentences: what a data set has left out, what is to stand below a metric's scores.
    """

    notes: Sequence[str]


class Target(Protocol):
    """One kind of label: what its tensors are, how they follow their image, and what becomes of predictions.

    Labels and predictions are dictionaries of tensors by name; the component's docstring says which. A label is in one
    of three forms: of an original (what `Sample.target` holds, coordinates in pixels of the original), of an input of
    the network (`placed`), and collated for a batch.

    Wired: `info` (DataInfo of the task's training data). Optional: `WritesFiles`, `Embeds`, `ChecksForm`,
    `RatesPredictions`.

    Attributes:
        mixes: Whether the labels of several images can be one (`placed` of several parts). If not, images that a
            transform makes of several cannot be lent to it.
    """

    mixes: ClassVar[bool]

    def unknown(self) -> dict[str, Tensor]:
        """The label of an original of which nothing is known. Not the same as one on which nothing is."""
        ...

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: of which images a collated batch says anything."""
        ...

    def placed(self, parts: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """The label of one input, of the labels of the originals that it shows and where each is in it.

        Several parts are a mosaic, each in a window of its own, or a blend: each lies over those before it
        (`mtframe.data.covers`, `shares`).
        """
        ...

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The labels of B inputs to tensors (B, ...); ragged ones padded, with a bool mask beside them."""
        ...

    def restored(self, views: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """One image's prediction in pixels of the original, of what a head said of one or several views of it.

        What heads say may have a form of its own; a prediction as `perfect` gives it is taken too.
        """
        ...

    def plain(self, prediction: Mapping[str, Tensor]) -> Any:
        """A prediction in numbers, text, lists and dictionaries, ready for JSON, which has no NaN."""
        ...

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """How the label of one original or one input is drawn on it."""
        ...

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        """How a prediction is drawn on its original."""
        ...

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """The prediction of one who knows a sample's label.

        In pixels of what the label is of: an original, or an input in which it was `placed`.
        """
        ...


@runtime_checkable
class WritesFiles(Protocol):
    """A kind of target whose predictions are too large for JSON, such as masks."""

    def files(self, prediction: Mapping[str, Tensor]) -> dict[str, bytes]:
        """What to write beside the JSON: contents by the end of a file's name, as `mask.png`."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """A kind of target whose predictions are compared with each other: galleries, similar pictures."""

    def embedding(self, prediction: Mapping[str, Tensor]) -> Tensor:
        """(D,) float, of unit length: the dot product of two is their similarity."""
        ...


@runtime_checkable
class ChecksForm(Protocol):
    """A kind of target that says what is wrong with a label or a prediction, for the conformance kit."""

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless it is a label of an original of that (height, width) in the documented form."""
        ...

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless it is a prediction of an original of that (height, width) in the documented form."""
        ...


@runtime_checkable
class RatesPredictions(Protocol):
    """A kind of target that tells how right predictions are, where metrics need more images than a handful."""

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """Larger is better and 1 is perfect; None if the labels of these samples cannot tell."""
        ...


class Transform(Protocol):
    """Images to inputs of one size: cropping, resizing, padding, augmenting. Labels follow by themselves.

    Wired: `size` (pixels of the square input), `train` (augment or not). Works on the whole batch, so that what can run
    on the batch does, and images can be mixed. Optional: `MixesImages`, `EvaluatesAs`, `KnowsOutside`.

    Attributes:
        fixed_size: False if the size changes from batch to batch (multi-scale training).
        decode_size: How large an image is worth decoding, or None for full size; passed on to the data set.
    """

    fixed_size: bool
    decode_size: DecodeSize | None

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        """At least one sample. All randomness comes from `rng` or torch's global generator; both are seeded.

        Raises BadImageError if nothing can be made of one of the images, which then is left out.
        """
        ...


@runtime_checkable
class MixesImages(Protocol):
    """A transform that may make an input of several images, as by mosaic or mixup.

    Attributes:
        mixes: Whether it does, with these options.
    """

    mixes: bool


@runtime_checkable
class EvaluatesAs(Protocol):
    """A transform of whose options some matter in training only.

    Attributes:
        evaluates_as: What its inputs depend on without augmentation. Two transforms of one class whose values are equal
            make equal inputs then, so that tasks with them share a pass of the backbone.
    """

    evaluates_as: Hashable


@runtime_checkable
class KnowsOutside(Protocol):
    """A transform that knows something from data besides the recipe's, as landmarks of faces."""

    @classmethod
    def outside(cls, **options: Any) -> str | None:
        """What it knows with these options, in words; None: nothing."""
        ...


class Metric(Protocol):
    """Scores a split by the field's own protocol.

    Wired: `dataset` (the evaluated split), `info`, `outside` (what else than the task's own training data the model
    has learned from, in words). Optional: `HasDetails`, `HasNotes`.

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


@runtime_checkable
class HasDetails(Protocol):
    """A metric that has more to tell than numbers."""

    def details(self) -> Sequence[Curves | Matrix | Bars]:
        """What does not fit into a number; asked for by `mtframe evaluate --out`."""
        ...


class Balancer(Protocol):
    """The tasks' losses to the one that is differentiated.

    Wired, here and in the other sort: `tasks` (their names); for a family, `member`.

    Of either sort: it draws from torch's global generator only, which is seeded at each step. One that is a
    `torch.nn.Module` has its parameters trained with the model's, without weight decay. Optional: `KeepsState`,
    `CountsFailures`, `WeighsHeads`, `KnowsPresent`; `Family`, `DescribesMembers`, `HasExampleMember`.
    """

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar."""
        ...


@runtime_checkable
class GradientBalancer(Protocol):
    """The other sort of balancer: weighs the tasks' gradients of what they share. Wired: `tasks` (their names).

    Heads and losses keep the gradient of their own task's loss. Tasks that take no part in a step are left out, and a
    step of one task is not balanced. Where a step accumulates several batches, each is balanced.

    Instead of `weigh` it may have what `GradientCombiner` has.
    """

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients and (T,) losses to (T,) weights, in the order of `tasks`.

        All float64 on the CPU, detached.
        """
        ...


@runtime_checkable
class GradientCombiner(Protocol):
    """A balancer of gradients that needs the gradients themselves; in all else a `GradientBalancer`."""

    def combine(self, gradients: Tensor, losses: Tensor) -> Tensor:
        """(T, P) gradients and (T,) losses to (P,), in the parameters' precision and on their device."""
        ...


@runtime_checkable
class KeepsState(Protocol):
    """A balancer that remembers something from step to step, with which a run resumes exactly."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, of tensors, numbers and text."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Takes it over."""
        ...


@runtime_checkable
class CountsFailures(Protocol):
    """A balancer whose solver may not converge.

    Attributes:
        failures: How often it did not; the log says so at the end of training.
    """

    failures: int


@runtime_checkable
class WeighsHeads(Protocol):
    """A balancer of gradients whose weights may be meant for the heads' and losses' gradients too.

    Attributes:
        weighs_heads: Whether they are. What a sharing scheme keeps for one task has that task's own gradient always.
    """

    weighs_heads: bool


@runtime_checkable
class KnowsPresent(Protocol):
    """A balancer of gradients that wants to know whose gradients it is given.

    Attributes:
        present: The tasks of the step; set before each call.
    """

    present: Sequence[str]


class Schedule(Protocol):
    """Which tasks train when, as a pure function of the step: a run that goes on asks it, and nothing is kept.

    Wired: `lengths` (by task that has images of its own, the batches that show each of them once); `every` (by the same
    tasks, k: it takes part in every k-th step). A recipe with an `every` above 1 is refused by a schedule that does not
    ask for it.

    Attributes:
        steps_per_epoch: Steps that show every image of every task at least once.
    """

    steps_per_epoch: int

    def draws(self, steps: int) -> Mapping[str, int]:
        """By task, how many batches the first `steps` steps take: 0 of 0 steps.

        A step takes at most one batch of a task, and one batch at least. A step a million on must not cost more than
        the first.
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
    test_scales: ClassVar[Sequence[float]]


# The protocols of each kind. Of what observes a training, hook by hook: `mtframe.hooks.HookSpecs`.
_CONTRACTS: dict[str, tuple[type, ...]] = {
    "backbone": (Backbone,),
    "sharing": (Sharing,),
    "head": (Head,),
    "loss": (Loss,),
    "dataset": (Dataset,),
    "target": (Target,),
    "transform": (Transform,),
    "metric": (Metric,),
    "balancer": (Balancer, GradientBalancer, GradientCombiner),
    "schedule": (Schedule,),
    "preset": (Preset,),
}

# What may be of any kind to which a recipe gives options, and of names that stand for many.
_ANY = (Migrates, HasExamples)
_FAMILY = (Family, DescribesMembers, HasExampleMember)

_ABILITIES: dict[str, tuple[type, ...]] = {
    "backbone": (HasColourOrder, TellsPretraining, *_FAMILY, *_ANY),
    "sharing": (NamesShared, TakesOver, *_ANY),
    "head": (MergesViews, *_ANY),
    "loss": (FollowsProgress, *_ANY),
    "dataset": (LabelsImages, OrdersEpochs, Downloads, Synthesizes, HasNotes, *_ANY),
    "target": (ChecksForm, RatesPredictions, WritesFiles, Embeds),
    "transform": (MixesImages, EvaluatesAs, KnowsOutside, *_ANY),
    "metric": (HasDetails, HasNotes, *_ANY),
    "balancer": (KeepsState, WeighsHeads, KnowsPresent, CountsFailures, *_FAMILY, *_ANY),
    "preset": (),
}


def members_of(protocol: type) -> tuple[str, ...]:
    """The public names that a protocol asks for."""
    names = dict.fromkeys([*vars(protocol).get("__annotations__", ()), *vars(protocol)])
    return tuple(name for name in names if not name.startswith("_"))
