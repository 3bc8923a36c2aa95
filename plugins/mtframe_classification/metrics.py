"""Metrics of one label, of several labels and of numbers; what is unknown is left out."""

# Shapes: N images, C classes, K numbers.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError
from mtframe.evaluation import Bars, Curves, Matrix
from mtframe.kinds import Dataset
from mtframe.metrics import PerImage, check_classes

from .scores import Floats, average_precision, f1, r_squared, reliability

# With so few classes the right one is always among the best five.
_FIVE = 5

_ADVICE = "; the data set's option 'classes' can say which"


class _PerImageMetric:
    """What the metrics here share: they keep something of each image, and refuse a split with other classes.

    Args:
        name: The metric's, for messages.
        info: Of the training data: names of the classes, or of the numbers, that are predicted.
        dataset: The evaluated split; None for no check.
        keep: What is kept of an image; None where nothing of it is known.

    Raises:
        DataError: The split has other classes, or has them in another order.
    """

    def __init__(
        self, name: str, info: DataInfo, dataset: Dataset | None, keep: Callable[[Mapping[str, Tensor], Sample], Any]
    ) -> None:
        check_classes(name, info, dataset, _ADVICE)
        self.info = info
        self._seen: PerImage[Any] = PerImage(keep)

    def reset(self) -> None:
        """Forgets everything."""
        self._seen.reset()

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds images; one that comes twice counts once, one of which nothing is known not at all."""
        self._seen.update(predictions, samples)

    def merge(self, other: Self) -> None:
        """Takes over another instance's images."""
        self._seen.merge(other._seen)


class Classification(_PerImageMetric):
    """One label each: accuracy of the best and of the best five classes, likelihood and calibration.

    `top1` and `top5` are parts of the images, `top5` n/a with five classes or fewer, all with one class. `ece` is
    the expected calibration error over 15 bins (arXiv:1706.04599), `nll` the mean of -ln p of the true class. Among
    classes of equal probability the first counts as the best.

    Args:
        info: Of the training data: names of the classes that are predicted.
        dataset: The evaluated split.

    Raises:
        DataError: The split has other classes, or has them in another order.
    """

    target: ClassVar[str] = "label"
    primary: ClassVar[str] = "top1"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, info: DataInfo, dataset: Dataset | None = None) -> None:
        super().__init__("classification", info, dataset, _answer)

    def compute(self) -> dict[str, float]:
        """`top1`, `top5`, `ece` and `nll`. Raises DataError if no image has a known class."""
        _, _, rank, confidence, true = _rows(self._seen).T
        few = len(self.info.classes) <= _FIVE
        if len(self.info.classes) < 2:
            return dict.fromkeys(("top1", "top5", "ece", "nll"), float("nan"))
        return {
            "top1": float((rank == 0).mean()),
            "top5": float("nan") if few else float((rank < _FIVE).mean()),
            "ece": reliability(confidence, rank == 0).error,
            # A probability that underflowed counts as float32's smallest, not as infinitely wrong.
            "nll": float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean()),
        }

    def gaps(self) -> dict[str, str]:
        """Why values are NaN: there are too few classes."""
        if len(self.info.classes) < 2:
            return dict.fromkeys(("top1", "top5", "ece", "nll"), "the model knows one class, so it is always right")
        if len(self.info.classes) <= _FIVE:
            return {"top5": f"with {len(self.info.classes)} classes the right one is always among five"}
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """That all images are of one class: then accuracy is the recall of that class, and a constant may be best."""
        seen = {int(answer[0]) for answer in self._seen.in_order().values()}
        if len(seen) != 1 or len(self.info.classes) < 2:
            return ()
        only = self.info.classes[seen.pop()]
        return (f"all known images of this split are {only!r}: a model that always says so would have a top1 of 1",)

    def details(self) -> Sequence[Matrix | Curves]:
        """The confusion matrix in numbers of images, and accuracy over confidence."""
        labels, best, rank, confidence, _ = _rows(self._seen).T
        bins = reliability(confidence, rank == 0)
        lines = {"model": (bins.confidence.tolist(), bins.accuracy.tolist()), "perfect": ([0.0, 1.0], [0.0, 1.0])}
        counts = np.zeros((len(self.info.classes),) * 2, np.int64)
        np.add.at(counts, (labels.astype(int), best.astype(int)), 1)
        return (
            Matrix("confusion", "true class", "predicted class", self.info.classes, self.info.classes, counts.tolist()),
            Curves("reliability", "confidence", "accuracy", lines),
        )


class MultiLabel(_PerImageMetric):
    """Several labels each: mean average precision over the classes, and F1 at a probability of one half.

    AP is Σ (R_n - R_{n-1}) P_n, as scikit-learn's `average_precision_score`. `f1_micro` counts all labels
    together, `f1_macro` is the mean over the classes. Classes without a known positive are left out of the means,
    and out of `mAP` those without a known negative, whose AP is 1 whatever is predicted.

    Args:
        info: Of the training data: names of the classes that are predicted.
        dataset: The evaluated split.

    Raises:
        DataError: The split has other classes, or has them in another order.
    """

    target: ClassVar[str] = "labels"
    primary: ClassVar[str] = "mAP"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, info: DataInfo, dataset: Dataset | None = None) -> None:
        super().__init__("multi-label", info, dataset, partial(_pair, "probabilities", "labels"))

    def compute(self) -> dict[str, float]:
        """`mAP`, `f1_micro` and `f1_macro`. Raises DataError if no image has a known label."""
        answers = [(predicted > 0.5, true > 0.5) for predicted, true in _by_class(self._seen)]
        predicted, positive = (np.concatenate(side) for side in zip(*answers, strict=True))
        return {
            "mAP": _mean(self._precisions()),
            "f1_micro": f1(predicted, positive) if positive.any() else float("nan"),
            "f1_macro": _mean([f1(*answer) for answer in answers if answer[1].any()]),
        }

    def gaps(self) -> dict[str, str]:
        """Why values are NaN: no class has what is needed."""
        if not any((true > 0.5).any() for _, true in _by_class(self._seen)):
            return dict.fromkeys(("mAP", "f1_micro", "f1_macro"), "no image of this split is known to have a label")
        return {"mAP": "no class has both images with its label and images without: AP is 1 whatever is predicted"}

    def details(self) -> Sequence[Bars]:
        """Average precision of each class; NaN without a known positive, or without a known negative."""
        return (Bars("per-class-ap", "AP", dict(zip(self.info.classes, self._precisions(), strict=True))),)

    def _precisions(self) -> list[float]:
        """Of each class, NaN without a known positive or without a known negative."""
        pairs = [(predicted, true > 0.5) for predicted, true in _by_class(self._seen)]
        return [float("nan") if true.all() else average_precision(predicted, true) for predicted, true in pairs]


class Regression(_PerImageMetric):
    """Numbers: mean absolute error, root mean square error and R², each the mean over the numbers.

    Errors are in the data's units; of numbers in different units the one of large values decides the mean, and
    `r2`, which has no unit, says more. A number whose true values do not differ has no R².

    Args:
        info: Of the training data: names of the numbers that are predicted.
        dataset: The evaluated split.

    Raises:
        DataError: The split has other numbers, or has them in another order.
    """

    target: ClassVar[str] = "value"
    primary: ClassVar[str] = "mae"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, info: DataInfo, dataset: Dataset | None = None) -> None:
        super().__init__("regression", info, dataset, partial(_pair, "values", "value"))

    def compute(self) -> dict[str, float]:
        """`mae`, `rmse` and `r2`. Raises DataError if no image has a known number."""
        pairs = _by_class(self._seen)
        return {
            "mae": _mean([_mean_absolute(predicted, true) for predicted, true in pairs]),
            "rmse": _mean([float(np.sqrt(np.square(p - t).mean())) for p, t in pairs if len(t)]),
            "r2": _mean([r_squared(predicted, true) for predicted, true in pairs]),
        }

    def gaps(self) -> dict[str, str]:
        """Why R² is NaN."""
        return {"r2": "no number's true values differ on this split"}

    def details(self) -> Sequence[Bars]:
        """Mean absolute error and R² of each number; NaN where they cannot be computed."""
        pairs = dict(zip(self.info.classes, _by_class(self._seen), strict=True))
        errors = {name: _mean_absolute(*pair) for name, pair in pairs.items()}
        fits = {name: r_squared(*pair) for name, pair in pairs.items()}
        return Bars("per-value-mae", "mean absolute error", errors), Bars("per-value-r2", "R²", fits)


def _answer(prediction: Mapping[str, Tensor], sample: Sample) -> tuple[float, ...] | None:
    """True class, predicted class, rank of the true one from 0, probabilities of the predicted and of the true one.

    These are enough to score one label; to keep all of an image's probabilities would take half a gigabyte with
    ImageNet's classes. None for an image of no known class.
    """
    label = int(sample.target["label"])
    if label < 0:
        return None
    probabilities = _finite(prediction["probabilities"], sample)
    best, true = int(probabilities.argmax()), probabilities[label]
    rank = (probabilities > true).sum() + (probabilities[:label] == true).sum()
    return label, best, rank, probabilities[best], true


def _pair(predicted: str, target: str, prediction: Mapping[str, Tensor], sample: Sample) -> np.ndarray | None:
    """(2, C): what is predicted and what is true, by their names; None if nothing of the latter is known."""
    true = sample.target[target].float().numpy()
    return None if np.isnan(true).all() else np.stack([_finite(prediction[predicted], sample), true])


def _finite(values: Tensor, sample: Sample) -> np.ndarray:
    array = values.float().numpy()
    if not np.isfinite(array).all():
        raise DataError(f"the prediction for {sample.id or sample.index} is not of finite numbers")
    return array


def _rows(seen: PerImage[Any]) -> Floats:
    """(N, ...): what was kept, image after image."""
    kept = list(seen.in_order().values())
    if not kept:
        raise DataError("no image with a known label was predicted; there is nothing to score")
    return np.array(kept, np.float64)


def _by_class(seen: PerImage[np.ndarray]) -> list[tuple[Floats, Floats]]:
    """Predicted and true values of each class or number, of the images where it is known."""
    pairs = _rows(seen)
    known = ~np.isnan(pairs[:, 1])
    return [(pairs[known[:, c], 0, c], pairs[known[:, c], 1, c]) for c in range(pairs.shape[2])]


def _mean(values: Sequence[float]) -> float:
    """Of those that are not NaN; NaN if none is left."""
    kept = [value for value in values if value == value]
    return float(np.mean(kept)) if kept else float("nan")


def _mean_absolute(predicted: Floats, true: Floats) -> float:
    return float(np.abs(predicted - true).mean()) if len(true) else float("nan")
