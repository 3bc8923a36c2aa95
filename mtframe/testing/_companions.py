"""The parts that a component needs beside it: real ones, that speak its kind of target."""

# Shapes: B images, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mtframe._fit import targets_of
from mtframe.data import Batch, DataInfo, Inputs, Placement, Sample, make_inputs
from mtframe.errors import PluginError, RecipeError
from mtframe.kinds import FeatureSpec, Target
from mtframe.options import build
from mtframe.registry import resolve

from ._subject import SIZE, Subject
from ._violation import Skip

if TYPE_CHECKING:
    from ._kit import Kit

# What heads are given where no backbone is asked for: the strides that most backbones have.
FEATURES = tuple(FeatureSpec(f"stride{stride}", channels, stride) for stride, channels in
                 ((4, 8), (8, 16), (16, 24), (32, 32)))  # fmt: skip

# Sides of images that backbones are tried with: some are made for one of these.
_SIZES = (SIZE, 112, 224)

# Enough for two images of a person beside those of others.
BATCH = 6

# The task that batches have targets of.
TASK = "checked"


class Companions:
    """Data, inputs, labels and heads for one kind of target.

    Args:
        kit: Whose distribution's parts come first.
        beside: The component that is checked. What presets name together with it comes first.
    """

    def __init__(self, kit: Kit, beside: Subject) -> None:
        self.kit, self.beside, self.speaks = kit, beside, beside.target

    def candidates(self, kind: str) -> Iterator[Subject]:
        """Components of a kind that speak this kind of target, the likeliest first."""
        named = self._named(kind)
        found = self.kit.neighbours(kind, speaking=self.speaks)
        # Stable: beyond what presets say, the own distribution stays first.
        for subject in sorted(found, key=lambda one: one.component.name not in named):
            # What a data set gives is only seen when it is opened.
            speaks = targets_of(subject.cls) if kind == "dataset" else filter(None, [subject.target])
            if self.speaks is None or not (known := tuple(speaks)) or self.speaks in known:
                yield subject

    @cached_property
    def data(self) -> tuple[Subject, Any]:
        """A data set with this kind of target, and its split for training.

        Raises:
            Skip: There is none.
        """
        reasons = []
        for subject in self.candidates("dataset"):
            try:
                dataset = self.kit.splits(subject)[0][1]
            except Exception as error:
                reasons.append(f"{subject}: {error}")
                continue
            if self.speaks in (None, dataset.info.target):
                return subject, dataset
        tried = f" (tried {'; '.join(reasons)})" if reasons else ""
        raise Skip(
            f"no data set with targets of kind {self.speaks!r} is at hand{tried}: offer one that can `synthesize`, or "
            "pass its folder, options={'dataset:NAME': {'root': ...}}"
        )

    @property
    def dataset(self) -> Any:
        """The data set's split for training."""
        return self.data[1]

    @property
    def info(self) -> DataInfo:
        """What its labels mean."""
        info: DataInfo = self.dataset.info
        return info

    @cached_property
    def target(self) -> Target:
        """The kind of target of its labels, as a recipe finds it: by its name.

        Raises:
            Skip: There is none of that name, which a check of data sets says.
        """
        try:
            return target_of(self.info)
        except PluginError as error:
            raise Skip(f"there is no kind of target {self.info.target!r}; see the check splits of data sets") from error

    @cached_property
    def evaluated(self) -> Any:
        """The data set's split that a metric scores: the one for validation, where there is one."""
        splits = dict(self.kit.splits(self.data[0]))
        return next((splits[name] for name in ("val", "test") if name in splits), self.dataset)

    @cached_property
    def samples(self) -> list[Sample]:
        """Some samples from all over the data set."""
        places = np.linspace(0, len(self.dataset) - 1, min(BATCH, len(self.dataset)))
        return [self.dataset[int(place)] for place in places]

    @cached_property
    def inputs(self) -> Inputs:
        """What a transform makes of these samples, without augmentation.

        Of one that a preset names together with the component, else of one that shows all of each image.
        """
        reasons, found, named = [], list[Inputs](), self._named("transform")
        for subject in self.candidates("transform"):
            try:
                inputs = self._inputs(subject)
            except Exception as error:
                reasons.append(f"{subject}: {type(error).__name__}: {error}")
                continue
            if subject.component.name in named or all(_is_whole(placement) for (placement, *_) in inputs.placements):
                return inputs
            found.append(inputs)
        if not found:
            tried = f" (tried {'; '.join(reasons)})" if reasons else ""
            raise Skip(f"no transform for these images is at hand{tried}")
        return found[0]

    def batch(self, unknown: Collection[int] = ()) -> Batch:
        """One batch, as evaluation makes it.

        Args:
            unknown: Places of the samples of which nothing is known.
        """
        target = self.target
        labels = [target.unknown() if place in unknown else sample.target for place, sample in enumerate(self.samples)]
        placed = [
            target.placed([(labels[placement.sample], placement) for placement in placements])
            for placements in self.inputs.placements
        ]
        own = [placements[0] for placements in self.inputs.placements]
        return Batch(self.inputs.images, {TASK: target.collate(placed)}, own)

    def first(self, kind: str, make: Any) -> Any:
        """What `make` gives of the first candidate that it raises nothing for."""
        reasons = []
        for subject in self.candidates(kind):
            try:
                return make(subject)
            except Exception as error:
                reasons.append(f"{subject}: {type(error).__name__}: {error}")
        tried = f" (tried {'; '.join(reasons)})" if reasons else ""
        raise Skip(f"no {kind} for targets of kind {self.speaks!r} is at hand{tried}")

    def _named(self, kind: str) -> set[str]:
        return self.kit.named_together(self.beside, kind)

    def _inputs(self, subject: Subject) -> Inputs:
        transform = subject.build(size=SIZE, train=False)
        return make_inputs(transform, self.samples, np.random.default_rng(0))


def target_of(info: DataInfo) -> Target:
    """The kind of target that data has. Raises PluginError if there is none of its name."""
    target: Target = build(resolve("target", info.target).component, "target", {}, {"info": info}, "target")
    return target


def build_head(subject: Subject, info: DataInfo) -> tuple[Any, tuple[FeatureSpec, ...]]:
    """A head on the usual feature maps, or where it refuses these on those of its distribution's backbones."""
    try:
        return subject.build(features=FEATURES, info=info, restoring=True), FEATURES
    except RecipeError as refused:
        for other in subject.kit.neighbours("backbone", own=True):
            try:
                features = build_backbone(other)[0].features
                return subject.build(features=features, info=info, restoring=True), features
            except Exception:
                continue
        raise refused


def build_backbone(subject: Subject) -> tuple[Any, int]:
    """A backbone with random weights, and the side of the images that it is built for."""
    refused: list[RecipeError] = []
    for size in _SIZES:
        try:
            return subject.build(size=size, restoring=True), size
        except RecipeError as error:
            refused.append(error)
    raise refused[0]


def random_maps(
    features: Sequence[FeatureSpec], images: int, seed: int = 0, size: tuple[int, int] = (SIZE, SIZE)
) -> list[Tensor]:
    """(B, C, H, W) maps of noise, one per feature, for images of this size."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, feature.channels, *(side // feature.stride for side in size), generator=generator)
        for feature in features
    ]


def _is_whole(placement: Placement) -> bool:
    """Whether all of an image is seen in its input."""
    x1, y1, x2, y2 = placement.bounds
    left, top, right, bottom = placement.seen
    return left <= x1 + 1 and top <= y1 + 1 and x2 <= right + 1 and y2 <= bottom + 1
