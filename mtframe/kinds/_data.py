"""Contracts of what data is made of: data sets, transforms and metrics."""

# Shapes: B images, C channels, H height, W width, N things in an image.

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mtframe.data import DataInfo, DecodeSize, Inputs, Sample
    from mtframe.evaluation import Bars, Curves, Matrix
    from mtframe.metrics import GalleryThresholds, Thresholds


class Samples(Protocol):
    """Samples by their position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample; raises IndexError past the end and BadImageError for a file that cannot be read."""
        ...


class Dataset(Samples, Protocol):
    """Images and labels of one split; a map-style data set, picklable.

    Wired: `split` (`"train"`, `"val"`, ...; the splits it has are in `splits`). Optional: `LabelsImages`,
    `OrdersEpochs`, `Downloads`, `Synthesizes`, `Recognises`, `ReportsOmissions`, `ReadsLabels`,
    `LabelsTakeLong`, `KeepsFiles`, `InspectsFiles`, `HasNotes`.

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
            DataError: The label of this image cannot be read, or is of an image of another size. The task goes without
                it, the others keep the image, and it counts as unreadable.
        """
        ...


@runtime_checkable
class OrdersEpochs(Protocol):
    """A data set whose batches must hold several images of a sort, or show all sorts equally often."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """(len,) int: the positions of one epoch in the order of training; one may come several times."""
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
class Recognises(Protocol):
    """A data set that knows its own files, so that `-t NAME=PRESET:ROOT` need not say which data set reads them."""

    @staticmethod
    def recognises(root: Path) -> Mapping[str, Any] | None:
        """The options that read what lies in a folder, or a file; `{}` for the defaults, None if it is another format.

        It looks at names, and into a few small files at most, and raises nothing for what it does not know. Options may
        hold another `root`, as where what is given is a file in it.
        """
        ...


@runtime_checkable
class ReportsOmissions(Protocol):
    """A data set that counts what it leaves out: what lies among its files, or is labelled, and is not used."""

    @property
    def omitted(self) -> Mapping[str, int]:
        """How many were left out of this split, by the reason in plain words, as `{"hidden files": 3}`.

        What cannot be known without reading an image is not in it.
        """
        ...


class Transform(Protocol):
    """Images to inputs of one size: cropping, resizing, padding, augmenting. Labels follow by themselves.

    Wired: `size` (pixels of the square input), `train` (augment or not). Works on the whole batch, so that what can run
    on the batch does, and images can be mixed. Optional: `MixesImages`, `FollowsProgress`, `EvaluatesAs`,
    `KnowsOutside`, `PlacesWhole`.

    Attributes:
        fixed_size: False if the size changes from batch to batch (multi-scale training), or inputs are no squares.
        decode_size: How large an image is worth decoding, or None for full size; passed on to the data set.
    """

    fixed_size: bool
    decode_size: DecodeSize | None

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
        """Inputs of one or more samples. All randomness comes from `rng` or torch's global generator, both seeded.

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
    has learned from, in words), `learned` (names of classes of this kind of target that it has learned elsewhere, by
    where, in words; none where nobody knows which). Optional: `HasDetails`, `HasNotes`, `ExplainsGaps`,
    `AsksDataset`, `ChoosesThresholds`, `ChoosesGalleryThresholds`.

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
        """Values by name; NaN stands for "cannot be resolved with this data" and is shown as n/a.

        That includes what the data alone decides, whatever is predicted, as the accuracy of one class.
        """
        ...

    def reset(self) -> None:
        """Forgets everything."""
        ...

    def merge(self, other: Any) -> None:
        """Takes over what another instance (another process) has seen."""
        ...


@runtime_checkable
class HasDetails(Protocol):
    """A metric that has more to report than numbers."""

    def details(self) -> Sequence[Curves | Matrix | Bars]:
        """What does not fit into a number; asked for by `mtframe evaluate --out`."""
        ...


@runtime_checkable
class ChoosesThresholds(Protocol):
    """A metric that chooses from which score on a prediction counts: a threshold of similarity, for example.

    Those that it chooses on the validation data are kept in the checkpoint of the weights that were scored.
    """

    def thresholds(self) -> Thresholds:
        """Those that suit this split; asked for after `compute`."""
        ...

    def scores_at(self, threshold: float) -> dict[str, float]:
        """Values by name of this split with a threshold that was chosen before, which `compute` does not have."""
        ...


@runtime_checkable
class ChoosesGalleryThresholds(Protocol):
    """A metric that chooses from which similarity on the most similar of so many identities is a match.

    Those that it chooses on the validation data are kept as those of `ChoosesThresholds` are.
    """

    def gallery_thresholds(self) -> GalleryThresholds:
        """Those that suit this split; asked for after `compute`."""
        ...

    def scores_with(self, kept: GalleryThresholds) -> dict[str, float]:
        """Values by name of this split with thresholds that were chosen before, which `compute` does not have."""
        ...


@runtime_checkable
class ExplainsGaps(Protocol):
    """A metric that says why it has no value for something."""

    def gaps(self) -> Mapping[str, str]:
        """By name of a value that is NaN, why this data cannot resolve it; asked for after `compute`.

        A clause that goes on after "AP is n/a: ", without a full stop, as `no image of this split has an object`.
        """
        ...


@runtime_checkable
class AsksDataset(Protocol):
    """A metric that asks data sets for more than their contract has, as pairs of images.

    The conformance kit then tells the authors of data sets of names that are nearly right.

    Attributes:
        asks: The protocols of what it asks for. A data set need not fit them.
    """

    asks: ClassVar[tuple[type, ...]]
