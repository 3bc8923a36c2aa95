"""Metrics of one label, of several labels and of numbers; what is unknown is left out."""

# Shapes: N images, C classes, K numbers.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError
from mtframe.evaluation import Bars, Curves, Matrix

from .scores import Floats, average_precision, f1, r_squared, reliability

# With so few classes the right one is always among the best five.
_FIVE = 5


class Classification:
    """One label each: accuracy of the best and of the best five classes, likelihood and calibration.

    `top1` and `top5` are parts of the images, `top5` n/a with five classes or fewer. `ece` is the expected
    calibration error over 15 bins (arXiv:1706.04599), `nll` the mean of -ln p of the true class. Among classes
    of equal probability the first counts as the best.

    Args:
        info: Of the training data: names of the classes that are predicted.
        dataset: The evaluated split.

    Raises:
        DataError: The split has other classes, or has them in another order.
    """

    target: ClassVar[str] = "label"
    primary: ClassVar[str] = "top1"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, info: DataInfo, dataset: Any = None) -> None:
        _check_classes("classification", info, dataset)
        self.info = info
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        # By image: true class, predicted class, place of the true one, probabilities of the two. Not all of an
        # image's probabilities: those of ImageNet's classes would take half a gigabyte.
        self._seen: dict[int, tuple[float, ...]] = {}

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds `probabilities` (C,); an image that comes twice counts once, one of no known class not at all."""
        for prediction, sample in zip(predictions, samples, strict=True):
            label = int(sample.target["label"])
            if label < 0:
                continue
            probabilities = _finite(prediction["probabilities"], sample)
            best, true = int(probabilities.argmax()), probabilities[label]
            place = (probabilities > true).sum() + (probabilities[:label] == true).sum()
            self._seen[sample.index] = (label, best, place, probabilities[best], true)

    def merge(self, other: Classification) -> None:
        """Takes over another instance's images."""
        self._seen.update(other._seen)

    def compute(self) -> dict[str, float]:
        """`top1`, `top5`, `ece` and `nll`. Raises DataError if no image has a known class."""
        _, _, place, confidence, true = self._columns()
        few = len(self.info.classes) <= _FIVE
        return {
            "top1": float((place == 0).mean()),
            "top5": float("nan") if few else float((place < _FIVE).mean()),
            "ece": reliability(confidence, place == 0).error,
            # A probability that underflowed counts as float32's smallest, not as infinitely wrong.
            "nll": float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean()),
        }

    def details(self) -> Sequence[Matrix | Curves]:
        """The confusion matrix in numbers of images, and accuracy over confidence."""
        labels, best, place, confidence, _ = self._columns()
        bins = reliability(confidence, place == 0)
        lines = {"model": (bins.confidence.tolist(), bins.accuracy.tolist()), "perfect": ([0.0, 1.0], [0.0, 1.0])}
        counts = np.zeros((len(self.info.classes),) * 2, np.int64)
        np.add.at(counts, (labels.astype(int), best.astype(int)), 1)
        return (
            Matrix("confusion", "true class", "predicted class", self.info.classes, self.info.classes, counts.tolist()),
            Curves("reliability", "confidence", "accuracy", lines),
        )

    def _columns(self) -> Floats:
        """(5, N), in the order of the images."""
        return np.array(_in_order(self._seen), np.float64).T


class _Pairs:
    """Predictions and targets, (2, K) an image; an image that comes twice counts once."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}

    def add(
        self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample], predicted: str, target: str
    ) -> None:
        """Adds images of which something is known; `predicted` and `target` are the names of both."""
        for prediction, sample in zip(predictions, samples, strict=True):
            true = sample.target[target].float().numpy()
            if not np.isnan(true).all():
                self.rows[sample.index] = np.stack([_finite(prediction[predicted], sample), true])

    def arrays(self) -> Floats:
        """(2, N, K): predicted and true, NaN where unknown; in the order of the images."""
        return np.stack(_in_order(self.rows), axis=1).astype(np.float64)


class MultiLabel:
    """Several labels each: mean average precision over the classes, and F1 at a probability of one half.

    AP is Σ (R_n - R_{n-1}) P_n, as scikit-learn's `average_precision_score`. `f1_micro` counts all labels
    together, `f1_macro` is the mean over the classes. Classes without a known positive are left out of the means.

    Args:
        info: Of the training data: names of the classes that are predicted.
        dataset: The evaluated split.

    Raises:
        DataError: The split has other classes, or has them in another order.
    """

    target: ClassVar[str] = "labels"
    primary: ClassVar[str] = "mAP"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, info: DataInfo, dataset: Any = None) -> None:
        _check_classes("multi-label", info, dataset)
        self.info = info
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._seen = _Pairs()

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds `probabilities` (C,); an image that comes twice counts once."""
        self._seen.add(predictions, samples, "probabilities", "labels")

    def merge(self, other: MultiLabel) -> None:
        """Takes over another instance's images."""
        self._seen.rows.update(other._seen.rows)

    def compute(self) -> dict[str, float]:
        """`mAP`, `f1_micro` and `f1_macro`. Raises DataError if no image has a known label."""
        predicted, true = self._seen.arrays()
        known, positive = ~np.isnan(true), true > 0.5
        learned = positive.any(0)
        single = [f1((predicted[:, c] > 0.5) & known[:, c], positive[:, c]) for c in np.flatnonzero(learned)]
        return {
            "mAP": _mean(self._precisions()),
            "f1_micro": f1((predicted > 0.5) & known, positive) if learned.any() else float("nan"),
            "f1_macro": _mean(single),
        }

    def details(self) -> Sequence[Bars]:
        """Average precision of each class; NaN without a known positive."""
        return (Bars("per-class-ap", "AP", dict(zip(self.info.classes, self._precisions(), strict=True))),)

    def _precisions(self) -> list[float]:
        """Of each class, NaN without a known positive."""
        predicted, true = self._seen.arrays()
        known = ~np.isnan(true)
        return [average_precision(predicted[known[:, c], c], true[known[:, c], c] > 0.5) for c in range(true.shape[1])]


class Regression:
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

    def __init__(self, info: DataInfo, dataset: Any = None) -> None:
        _check_classes("regression", info, dataset)
        self.info = info
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._seen = _Pairs()

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds `values` (K,); an image that comes twice counts once."""
        self._seen.add(predictions, samples, "values", "value")

    def merge(self, other: Regression) -> None:
        """Takes over another instance's images."""
        self._seen.rows.update(other._seen.rows)

    def compute(self) -> dict[str, float]:
        """`mae`, `rmse` and `r2`. Raises DataError if no image has a known number."""
        pairs = self._pairs()
        return {
            "mae": _mean([_mean_absolute(predicted, true) for predicted, true in pairs]),
            "rmse": _mean([float(np.sqrt(np.square(p - t).mean())) for p, t in pairs if len(t)]),
            "r2": _mean([r_squared(predicted, true) for predicted, true in pairs]),
        }

    def details(self) -> Sequence[Bars]:
        """Mean absolute error and R² of each number; NaN where they cannot be told."""
        pairs = dict(zip(self.info.classes, self._pairs(), strict=True))
        errors = {name: _mean_absolute(*pair) for name, pair in pairs.items()}
        fits = {name: r_squared(*pair) for name, pair in pairs.items()}
        return Bars("per-value-mae", "mean absolute error", errors), Bars("per-value-r2", "R²", fits)

    def _pairs(self) -> list[tuple[Floats, Floats]]:
        """Predicted and true values of each number, of the images where it is known."""
        predicted, true = self._seen.arrays()
        known = ~np.isnan(true)
        return [(predicted[known[:, k], k], true[known[:, k], k]) for k in range(true.shape[1])]


def _check_classes(metric: str, info: DataInfo, dataset: Any) -> None:
    """Raises DataError unless the evaluated split has the classes that are predicted, in the same order."""
    if dataset is None or dataset.info.classes == info.classes:
        return
    here, there = dataset.info.classes, info.classes
    place = next((n for n, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), None)
    first = "" if place is None else f"; number {place} is {here[place]!r} here and {there[place]!r} there"
    raise DataError(
        f"{metric}: this split has {len(here)} classes, the model was trained on {len(there)}{first}. Both need the "
        "same ones in the same order; the data set's option 'classes' can say which"
    )


def _finite(values: Tensor, sample: Sample) -> np.ndarray:
    array = values.float().numpy()
    if not np.isfinite(array).all():
        raise DataError(f"the prediction for {sample.id or sample.index} is not of finite numbers")
    return array


def _in_order(seen: Mapping[int, Any]) -> list[Any]:
    """What was kept, by the images' numbers: floating-point sums then do not depend on the order of updates."""
    if not seen:
        raise DataError("no image with a known label was predicted; there is nothing to score")
    return [seen[index] for index in sorted(seen)]


def _mean(values: Sequence[float]) -> float:
    """Of those that are not NaN; NaN if none is left."""
    kept = [value for value in values if value == value]
    return float(np.mean(kept)) if kept else float("nan")


def _mean_absolute(predicted: Floats, true: Floats) -> float:
    return float(np.abs(predicted - true).mean()) if len(true) else float("nan")
