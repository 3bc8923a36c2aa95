"""The contract of kinds of target."""

# Shapes: B images, C channels, H height, W width, N things in an image.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from mtframe.data import Placement, Sample
    from mtframe.marks import Mark


class Target(Protocol):
    """One kind of label: what its tensors are, how they follow their image, and what becomes of predictions.

    Labels and predictions are dictionaries of tensors by name; the component's docstring says which. A label is in one
    of three forms: of an original (what `Sample.target` holds, coordinates in pixels of the original), of an input of
    the network (`placed`), and collated for a batch.

    Wired: `info` (DataInfo of the task's training data). Optional: `WritesFiles`, `Embeds`, `ChecksForm`,
    `RatesPredictions`, `Surveys`.

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
        (`mtframe.data.covers`, `shares`). Of a part that is unknown the label says nothing, which is not that nothing
        is there; where it cannot say so of a part, it is unknown as a whole.
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
    """A kind of target that rates how right predictions are, where metrics need more images than a handful."""

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """Larger is better and 1 is perfect; None if the labels of these samples cannot tell."""
        ...
