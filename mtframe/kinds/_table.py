"""The table of kinds."""

from __future__ import annotations

from dataclasses import dataclass

from ._any import DescribesMembers, Family, HasExampleMember, HasExamples, HasNotes, Migrates
from ._data import (
    AsksDataset,
    ChoosesGalleryThresholds,
    ChoosesThresholds,
    Dataset,
    Downloads,
    EvaluatesAs,
    ExplainsGaps,
    HasDetails,
    KnowsOutside,
    LabelsImages,
    Metric,
    MixesImages,
    OrdersEpochs,
    Recognises,
    ReportsOmissions,
    Synthesizes,
    Transform,
)
from ._model import (
    Backbone,
    BuiltForSize,
    FollowsProgress,
    HasColourOrder,
    Head,
    Loss,
    MergesViews,
    NamesLayers,
    NamesShared,
    Sharing,
    TakesOver,
    TellsPretraining,
)
from ._survey import InspectsFiles, KeepsFiles, LabelsTakeLong, PlacesWhole, ReadsLabels, Surveys, TellsUnlearnable
from ._target import ChecksForm, Embeds, RatesPredictions, Target, WritesFiles
from ._training import (
    Balancer,
    CountsFailures,
    GradientBalancer,
    GradientCombiner,
    KeepsState,
    KnowsPresent,
    Preset,
    Schedule,
    WeighsHeads,
)


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
        """The protocols of which a component fits one; none where something other than a protocol says what it has."""
        return _CONTRACTS.get(self.name, ())

    @property
    def abilities(self) -> tuple[type, ...]:
        """The protocols that a component may fit in addition."""
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
            ("features", "info", "restoring"),
            "turns feature maps into one task's outputs",
            ("predict", "__call__"),
            targets=True,
        ),
        Kind("loss", ("head", "info", "restoring"), "compares outputs with targets", ("__call__",), targets=True),
        Kind(
            "dataset",
            ("split",),
            "reads images and labels from disk",
            ("splits", "info", "__len__", "__getitem__"),
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
            ("dataset", "info", "outside", "learned"),
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


_FAMILY = (Family, DescribesMembers, HasExampleMember)


# What may be of any kind to which a recipe gives options, and of names that stand for many.
_ANY = (Migrates, HasExamples)


_ABILITIES: dict[str, tuple[type, ...]] = {
    "backbone": (HasColourOrder, TellsPretraining, BuiltForSize, NamesLayers, *_FAMILY, *_ANY),
    "sharing": (NamesShared, TakesOver, *_ANY),
    "head": (MergesViews, TellsUnlearnable, *_ANY),
    "loss": (FollowsProgress, *_ANY),
    "dataset": (
        LabelsImages,
        OrdersEpochs,
        Downloads,
        Synthesizes,
        Recognises,
        ReportsOmissions,
        ReadsLabels,
        LabelsTakeLong,
        KeepsFiles,
        InspectsFiles,
        HasNotes,
        *_ANY,
    ),
    "target": (ChecksForm, RatesPredictions, WritesFiles, Embeds, Surveys),
    "transform": (MixesImages, FollowsProgress, EvaluatesAs, KnowsOutside, PlacesWhole, *_ANY),
    "metric": (HasDetails, HasNotes, ChoosesThresholds, ChoosesGalleryThresholds, ExplainsGaps, AsksDataset, *_ANY),
    "balancer": (KeepsState, WeighsHeads, KnowsPresent, CountsFailures, *_FAMILY, *_ANY),
    "preset": (),
}


def members_of(protocol: type) -> tuple[str, ...]:
    """The public names that a protocol asks for."""
    names = dict.fromkeys([*vars(protocol).get("__annotations__", ()), *vars(protocol)])
    return tuple(name for name in names if not name.startswith("_"))
