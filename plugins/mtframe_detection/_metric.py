"""COCO's average precision and recall."""

# Shapes: N boxes of one image.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from mtframe.errors import DataError

if TYPE_CHECKING:
    from mtframe.data import DataInfo, Sample
    from mtframe.kinds import Dataset

# In the order of COCO's summary.
_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class CocoAP:
    """COCO's 12 numbers (cocodataset.org/#detection-eval), 0..1.

    AP averages over IoU 0.50:0.05:0.95 and the classes; AP50 and AP75 take one IoU; s, m and l are objects
    below 32², below 96² and above (area as annotated, in pixels of the original); AR1, AR10 and AR100 are
    recalls of so many detections an image. Crowd regions are neither wanted nor punished.

    Args:
        info: Of the training data: names of the classes that are predicted.
        dataset: The evaluated split.

    Raises:
        DataError: The split has other classes, or has them in another order.
    """

    target: ClassVar[str] = "boxes"
    primary: ClassVar[str] = "AP"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, info: DataInfo, dataset: Dataset | None = None) -> None:
        if dataset is not None and dataset.info.classes != info.classes:
            raise DataError(_differing(info.classes, dataset.info.classes))
        self.info = info
        self._seen: dict[int, tuple[Sample, dict[str, np.ndarray]]] = {}

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds images: `boxes` (N, 4) XYXY in original pixels, `scores` (N,) and `labels` (N,) of each.

        An image that comes twice (several processes pad their shares) counts once.
        """
        for prediction, sample in zip(predictions, samples, strict=True):
            found = {name: prediction[name].detach().cpu().double().numpy() for name in ("boxes", "scores", "labels")}
            self._seen[sample.index] = sample, found

    def compute(self) -> dict[str, float]:
        """The 12 numbers; NaN where the data has no object of that size."""
        from faster_coco_eval import COCO, COCOeval_faster

        frame = {
            "images": [
                {"id": index, "height": sample.size[0], "width": sample.size[1]}
                for index, (sample, _) in self._seen.items()
            ],
            "categories": [{"id": label, "name": name} for label, name in enumerate(self.info.classes)],
        }
        truth = COCO({**frame, "annotations": _numbered(self._truth())}, print_function=_silent)
        found = COCO({**frame, "annotations": _numbered(self._found())}, print_function=_silent)
        evaluation = COCOeval_faster(truth, found, "bbox", print_function=_silent)
        evaluation.run()
        values = np.asarray(evaluation.stats[: len(_NAMES)], dtype=float)
        # -1 is COCO's "nothing of this kind in the data".
        return dict(zip(_NAMES, np.where(values < 0, np.nan, values).tolist(), strict=True))

    def reset(self) -> None:
        """Forgets everything."""
        self._seen.clear()

    def merge(self, other: CocoAP) -> None:
        """Takes over another instance's images."""
        self._seen.update(other._seen)

    def _truth(self) -> Iterator[dict[str, Any]]:
        for index, (sample, _) in self._seen.items():
            columns = (sample.target[name].tolist() for name in ("boxes", "labels", "crowd", "area"))
            for box, label, crowd, area in zip(*columns, strict=True):
                yield {
                    "image_id": index, "category_id": label, "bbox": _xywh(box),
                    "area": area, "iscrowd": int(crowd),
                }  # fmt: skip

    def _found(self) -> Iterator[dict[str, Any]]:
        for index, (_, found) in self._seen.items():
            columns = (found[name].tolist() for name in ("boxes", "scores", "labels"))
            for box, score, label in zip(*columns, strict=True):
                x, y, width, height = _xywh(box)
                yield {
                    "image_id": index, "category_id": int(label), "bbox": [x, y, width, height],
                    "area": width * height, "iscrowd": 0, "score": score,
                }  # fmt: skip


def _xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _numbered(annotations: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    # From 1: the evaluator takes id 0 for "no match".
    return [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)]


def _differing(learned: Sequence[str], evaluated: Sequence[str]) -> str:
    count = f"{len(evaluated)} classes, the model was trained on {len(learned)}"
    place = next((n for n, pair in enumerate(zip(learned, evaluated, strict=False)) if pair[0] != pair[1]), None)
    first = "" if place is None else f"; number {place} is {evaluated[place]!r} here and {learned[place]!r} there"
    return f"coco-ap: this split has {count}{first}. Both need the same ones, in the order of their category ids"


def _silent(*_: object) -> None:
    pass
