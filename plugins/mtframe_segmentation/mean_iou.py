"""Mean intersection over union of the classes, over the pixels whose class is known."""

# Shapes: C classes, H and W of an original.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError
from mtframe.evaluation import Bars, Matrix
from mtframe.kinds import Dataset
from mtframe.metrics import PerImage, check_classes

from .masks import UNKNOWN


class MeanIoU:
    """The pixels of all images together: mean IoU of the classes, and the part of the pixels that are right.

    A class's IoU is its right pixels over those that have it in the label, in the prediction or in both (VOC's
    segmentation score). Pixels whose class is not known count for nothing; a class that neither has is left out of the
    mean. With one class both are n/a.

    Args:
        info: Of the training data: names of the classes that are predicted.
        dataset: The evaluated split.

    Raises:
        DataError: The split has other classes, or has them in another order.
    """

    target: ClassVar[str] = "mask"
    primary: ClassVar[str] = "mIoU"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, info: DataInfo, dataset: Dataset | None = None) -> None:
        check_classes("mean-iou", info, dataset, "; the data set's option 'classes' says which")
        self.classes = info.classes
        # Places in the confusion matrix that are not 0, and their numbers. Whole matrices would be gigabytes for
        # thousands of images of a hundred classes.
        self._seen: PerImage[tuple[np.ndarray, np.ndarray]] = PerImage(self._counted)

    def reset(self) -> None:
        """Forgets everything."""
        self._seen.reset()

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds `mask` (H, W); an image that comes twice counts once, one of which nothing is known not at all."""
        self._seen.update(predictions, samples)

    def merge(self, other: MeanIoU) -> None:
        """Takes over another instance's images."""
        self._seen.merge(other._seen)

    def compute(self) -> dict[str, float]:
        """`mIoU` and `pixel_accuracy`. Raises DataError if the class of no pixel is known."""
        counts = self._confusion()
        if len(self.classes) < 2:
            return {"mIoU": float("nan"), "pixel_accuracy": float("nan")}
        return {
            "mIoU": float(np.nanmean(self._ious(counts))),
            "pixel_accuracy": float(np.trace(counts) / counts.sum()),
        }

    def gaps(self) -> dict[str, str]:
        """Why values are NaN: there is one class."""
        return dict.fromkeys(("mIoU", "pixel_accuracy"), "the model knows one class, so every known pixel is right")

    def details(self) -> Sequence[Matrix | Bars]:
        """IoU of each class, NaN of one that is not there; and the confusion matrix, in parts of the true class."""
        counts = self._confusion()
        parts = (counts / counts.sum(1, keepdims=True).clip(1)).round(3)
        ious = dict(zip(self.classes, self._ious(counts).tolist(), strict=True))
        return (
            Bars("per-class-iou", "IoU", ious),
            Matrix("confusion", "true class", "predicted class", self.classes, self.classes, parts.tolist()),
        )

    def _counted(self, prediction: Mapping[str, Tensor], sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
        """Pixels of one image by place in the confusion matrix; None where none is known."""
        true, found = sample.target["mask"], prediction["mask"]
        if true.numel() and found.shape != true.shape:
            raise DataError(
                f"mean-iou: the prediction for {sample.id or sample.index} is {tuple(found.shape)}, its mask "
                f"{tuple(true.shape)}"
            )
        known = true != UNKNOWN
        if not known.any():
            return None
        counts = np.bincount((true[known].int() * len(self.classes) + found[known].int()).numpy())
        places = np.flatnonzero(counts)
        return places, counts[places]

    def _confusion(self) -> np.ndarray:
        """(C, C) pixels by true and by predicted class."""
        seen = self._seen.in_order()
        if not seen:
            raise DataError("no image with a known pixel was predicted; there is nothing to score")
        counts = np.zeros(len(self.classes) ** 2, np.int64)
        for places, numbers in seen.values():
            counts[places] += numbers
        return counts.reshape(len(self.classes), -1)

    def _ious(self, counts: np.ndarray) -> np.ndarray:
        """(C,) float64, NaN of a class that is not there."""
        right = np.diagonal(counts)
        union = counts.sum(0) + counts.sum(1) - right
        return np.where(union > 0, right / union.clip(1), np.nan)
