"""What components tell of data before anything is trained on it: what is there, and what cannot be meant."""

# Shapes: I images, B images in a batch.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mtframe.data import Placement, Sample
    from mtframe.evaluation import Detail

Severity = Literal["note", "warning", "error"]

# What the framework itself finds in the data of any task; data sets and kinds of target say their own (`findings`).
FINDINGS = (
    "class-not-trained", "class-without-any", "classes-differ", "learned-elsewhere", "missing-images", "mostly-empty",
    "nothing-labelled", "same-file", "unlearnable", "unreadable", "wrong-labels",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in data that a person should know before it is trained on.

    Attributes:
        name: A word for it, as `boxes-like-corners`: what `--allow` and `train.allow` take.
        severity: `error` is what cannot be meant, and stops; `warning` is odd; `note` is worth knowing.
        text: What was found, how much of it, and what to do.
        examples: A few places where it was found.
    """

    name: str
    severity: Severity
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """What the labels of a split say.

    Attributes:
        things: What they count, as "boxes".
        classes: How many of each class, in label order; empty where classes say nothing, as of many people.
        total: How many of all classes.
        empty: Images that are labelled, with nothing on them.
        unknown: Images of which nothing is known.
        rows: Further numbers, by what they are.
        findings: What is odd about the labels.
        pictures: Classes, sizes, places: whatever shows them.
        amounts: How much of each class, in label order, where that says more than how many: pixels.
        measured: What these are, as "pixels".
    """

    things: str
    classes: Mapping[str, int]
    total: int
    empty: int = 0
    unknown: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    pictures: tuple[Detail, ...] = ()
    amounts: Mapping[str, int] = field(default_factory=dict)
    measured: str = ""


@runtime_checkable
class ReadsLabels(Protocol):
    """A data set whose labels can be read without decoding images: what is surveyed before a training starts."""

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels, which are not decoded; its size is (0, 0) where only they would tell.

        Raises:
            BadImageError: The file is missing, or damaged where it was looked at; BadLabelError: its label is wrong.
        """
        ...


@runtime_checkable
class LabelsTakeLong(Protocol):
    """A data set whose labels are files of pixels: before a training, some from all over a split are looked at.

    Attributes:
        looked_at: How many of a split.
    """

    looked_at: ClassVar[int]


@runtime_checkable
class KeepsFiles(Protocol):
    """A data set whose images lie in a folder, each at the path that its id is (`LabelsImages`).

    Attributes:
        root: The folder.
    """

    root: Path


@runtime_checkable
class InspectsFiles(Protocol):
    """A data set that knows what can go wrong in its format: labels in the wrong place, numbers of another meaning.

    Attributes:
        findings: The names of all that it may find.
    """

    findings: ClassVar[tuple[str, ...]]

    def inspect(self) -> Sequence[Finding]:
        """What is odd about the files of this split, by their names and labels; no image is decoded."""
        ...


@runtime_checkable
class Surveys(Protocol):
    """A kind of target that can count, and judge, the labels of a whole split.

    It sees each label once (`condensed`), perhaps in another process, and then all that it has kept of them (`survey`).

    Attributes:
        findings: The names of all that it may find; empty if it finds nothing odd.
    """

    findings: ClassVar[tuple[str, ...]]

    def condensed(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """Small arrays that `survey` needs of a sample's label. The sample has no pixels, and may have a size of 0."""
        ...

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        """What the labels of I images say.

        Args:
            condensed: Of each image.
            scales: (I,) how many pixels of the network's input one of the original is, without augmentation; NaN where
                that is not known.
        """
        ...


@runtime_checkable
class TellsUnlearnable(Protocol):
    """A head that knows which things none of its outputs would be taught."""

    def unlearnable(self, targets: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """(B,) long: how many things of each image of a collated batch no output learns, in inputs of (height, width).

        Of two things that want one output, one goes without.
        """
        ...


@runtime_checkable
class PlacesWhole(Protocol):
    """A transform that places images by their size alone, without augmentation."""

    def placement_of(self, size: tuple[int, int]) -> Placement:
        """Where an original of (height, width) lies in an input."""
        ...
