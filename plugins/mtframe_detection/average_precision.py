"""COCO's average precision and recall."""

# Shapes: N boxes of one image, R recalls, K classes.

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from mtframe.errors import RecipeError
from mtframe.evaluation import Bars, Curves, Detail, Matrix
from mtframe.metrics import PerImage, check_classes

from .coco_evaluation import precision_and_recall
from .coco_matching import Matched, match_image, objects_of
from .confusion import add_confusions
from .tide import Errors, analyse, judge

if TYPE_CHECKING:
    from mtframe.data import DataInfo, Sample
    from mtframe.kinds import Dataset

# Up to this many classes have a curve of their own: more could not be told apart.
_MAX_CURVES = 10


class CocoAP:
    """COCO's 12 numbers (cocodataset.org/#detection-eval), 0..1.

    AP averages over IoU 0.50:0.05:0.95 and the classes; AP50 and AP75 take one IoU; s, m and l are objects
    below 32², below 96² and above (area as annotated, in pixels of the original); AR1, AR10 and AR100 are
    recalls with at most that many detections an image. Crowd regions are neither wanted nor punished.

    Detections of one score are taken in the order of their images' ids, as pycocotools does, and on one image in the
    order in which they were predicted; so scores do not depend on the order of images.

    Details, at IoU 0.5 but for the AP of each class: precision over recall, a confusion matrix, and what AP50 is
    lost to by type of error (TIDE, arXiv:2008.08115).

    Args:
        info: Of the training data: names of the classes that are predicted.
        dataset: The evaluated split.
        max_detections: Detections of a class that count on an image, by score; 100 for COCO, more where images
            have more objects (the head's own limit is for all classes together).
        score_threshold: Least score of a detection that counts in the confusion matrix.

    Raises:
        RecipeError: An option is out of range.
        DataError: The split has other classes, or has them in another order.
    """

    target: ClassVar[str] = "boxes"
    primary: ClassVar[str] = "AP"
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self,
        info: DataInfo,
        dataset: Dataset | None = None,
        *,
        max_detections: int = 100,
        score_threshold: float = 0.3,
    ) -> None:
        if max_detections < 100:
            raise RecipeError(f"max_detections: must be 100, which is COCO's, or more, got {max_detections}")
        if not 0 <= score_threshold <= 1:
            raise RecipeError(f"score_threshold: must be between 0 and 1, got {score_threshold}")
        check_classes("coco-ap", info, dataset)
        self.info = info
        self.max_detections, self.score_threshold = max_detections, score_threshold
        # In the order of COCO's summary.
        sizes = ("s", "m", "l")
        self._names = (
            "AP", "AP50", "AP75", *(f"AP{size}" for size in sizes),
            "AR1", "AR10", f"AR{max_detections}", *(f"AR{size}" for size in sizes),
        )  # fmt: skip
        self._seen = PerImage(_arrays)
        self._precision: np.ndarray | None = None

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds images: `boxes` (N, 4) XYXY in original pixels, `scores` (N,) and `labels` (N,) of each.

        An image that comes twice (several processes pad their shares) counts once.
        """
        self._seen.update(predictions, samples)
        self._precision = None

    def compute(self) -> dict[str, float]:
        """The 12 numbers; NaN where the data has no object of that size."""
        limits = (1, 10, self.max_detections)
        precision, recall = precision_and_recall(self._matched(), len(self.info.classes), limits)
        # Of objects of all sizes.
        self._precision = precision[..., 0]
        ious = (slice(None), 0, 5)
        values = (
            *(precision[iou, :, :, 0] for iou in ious), *(precision[..., size] for size in (1, 2, 3)),
            *(recall[..., 0, limit] for limit in (0, 1, 2)), *(recall[..., size, -1] for size in (1, 2, 3)),
        )  # fmt: skip
        # -1 is COCO's "nothing of this kind in the data".
        there = [value[value > -1] for value in values]
        means = [float(value.mean()) if value.size else math.nan for value in there]
        return dict(zip(self._names, means, strict=True))

    def gaps(self) -> dict[str, str]:
        """Why numbers are NaN: there is nothing to find, or nothing of a size."""
        objects = [objects_of(sample.target) for sample, _ in self._images()]
        areas = np.concatenate([np.zeros(0), *(these["area"][~these["crowd"]] for these in objects)])
        if not len(areas):
            return dict.fromkeys(self._names, "no image of this split has an object")
        there = (areas <= 32**2, (areas >= 32**2) & (areas <= 96**2), areas >= 96**2)
        what = ("below 32²", "of 32² to 96²", "above 96²")
        return {
            name: f"no object is {size} pixels large"
            for place, (any_, size) in enumerate(zip(there, what, strict=True))
            if not any_.any()
            for name in (self._names[3 + place], self._names[9 + place])
        }

    def details(self) -> list[Detail]:
        """AP by class (NaN without objects), precision over recall, confusions, errors and what they cost."""
        counts, errors = self._mistakes()
        precision = self._precisions()
        labels = (*self.info.classes, "background")
        curves = self._curves(precision[0])
        return [
            Bars("per-class-ap", "AP", self._by_class(precision.mean(axis=(0, 1)))),
            Bars("per-class-ap50", "AP50", self._by_class(precision[0].mean(axis=0))),
            *([Curves("precision-recall", "recall", "precision (IoU 0.5)", curves)] if curves else []),
            Matrix("confusion", "object", "found as", labels, labels, counts.tolist()),
            Bars("ap50-lost", "rise of AP50 without them", errors.costs),
            Bars("errors", "count", errors.counts),
        ]

    def reset(self) -> None:
        """Forgets everything."""
        self._seen.reset()
        self._precision = None

    def merge(self, other: CocoAP) -> None:
        """Takes over another instance's images."""
        self._seen.merge(other._seen)
        self._precision = None

    def _mistakes(self) -> tuple[np.ndarray, Errors]:
        """Confusions, and errors by type."""
        number = len(self.info.classes)
        counts, judged = np.zeros((number + 1, number + 1), dtype=np.int64), []
        for image in self._matched():
            add_confusions(counts, image, self.score_threshold)
            judged.append(judge(image))
        return counts, analyse(judged, number)

    def _precisions(self) -> np.ndarray:
        """The evaluator's, (10, 101, K) by IoU, recall and class; NaN for classes without objects."""
        if self._precision is None:
            self.compute()
        precision = np.asarray(self._precision)
        return np.where(precision < 0, np.nan, precision)

    def _by_class(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.info.classes, values.tolist(), strict=True))

    def _curves(self, precision_RK: np.ndarray) -> dict[str, tuple[list[float], list[float]]]:
        """Of all classes that have objects, where they are few; and their mean."""
        there = np.flatnonzero(np.isfinite(precision_RK).all(axis=0)).tolist()
        if not there:
            return {}
        lines = {"mean of classes": precision_RK[:, there].mean(axis=1)}
        if len(there) <= _MAX_CURVES:
            lines |= {self.info.classes[label]: precision_RK[:, label] for label in there}
        recalls = np.linspace(0, 1, len(precision_RK)).tolist()
        return {name: (recalls, precision.tolist()) for name, precision in lines.items()}

    def _matched(self) -> Iterator[Matched]:
        """What became of each image's boxes; one by one, since IoUs of a thousand with a thousand take 8 MB."""
        for sample, found in self._images():
            yield match_image(found, sample.target, self.max_detections)

    def _images(self) -> list[tuple[Sample, dict[str, np.ndarray]]]:
        """Samples and what was found on them, by the images' ids: the order in which COCO takes equal scores."""
        return sorted(self._seen.in_order().values(), key=lambda image: _image_id(image[0]))


def _arrays(prediction: Mapping[str, Tensor], sample: Sample) -> tuple[Sample, dict[str, np.ndarray]]:
    """An image's sample, and what was found on it."""
    return sample, {name: prediction[name].detach().cpu().double().numpy() for name in ("boxes", "scores", "labels")}


def _image_id(sample: Sample) -> int:
    """That of the data, or the place in a data set that has none."""
    id = sample.target.get("image_id")
    return sample.index if id is None else int(id)
