"""The kinds of target of whole images: one class (`label`), any of the classes (`labels`), numbers (`value`)."""

# Shapes: B images, C classes, K numbers.

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.data import DataInfo, Placement, Sample, shares
from mtframe.kinds import Survey
from mtframe.marks import Bar, Mark, Text

from ._survey import condensed, survey_classes

Parts = Sequence[tuple[Mapping[str, Tensor], Placement]]

# How many classes are listed for a picture, where they exclude each other.
_TOP = 5

# How many are drawn of a label that is a mixture.
_MIXED = 2


class _Probabilities:
    """What kinds of target share whose prediction is a probability for each class.

    Args:
        info: Its `classes`.
    """

    mixes: ClassVar[bool] = True
    findings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, info: DataInfo) -> None:
        self.classes = info.classes

    def restored(self, views: Parts) -> dict[str, Tensor]:
        """The mean of the views' probabilities."""
        return _mean(views, "probabilities")

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        """The most likely classes, with bars."""
        rows = _ranked(self.classes, prediction["probabilities"], _TOP)
        return [Bar(row["label"], f"{row['probability']:.2f}", row["probability"]) for row in rows]

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless there is a probability of 0 to 1 for each class."""
        _check_numbers("probabilities", prediction, len(self.classes), least=0, most=1)


class Label(_Probabilities):
    """One class of a few.

    A label is `label`, () long, -1 if it is not known. An input that is made of several images has `probabilities` as
    well, (C,) float: each class's share. A prediction is `probabilities`, (C,) float, 0..1, which add up to 1.

    Args:
        info: Its `classes`.
    """

    def unknown(self) -> dict[str, Tensor]:
        """A label of -1."""
        return {"label": torch.tensor(-1)}

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: the images whose class is known."""
        return targets["label"] >= 0

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        """The label; of several images their mixture, which is unknown if one of them is."""
        if len(parts) == 1:
            return {"label": parts[0][0]["label"]}
        weighted = list(_weighted(parts))
        if any(label["label"] < 0 for label, _ in weighted):
            return {**self.unknown(), "probabilities": torch.zeros(len(self.classes))}
        mixture = sum(weight * self._one_hot(label["label"]) for label, weight in weighted)
        # That of the first image that is seen: a hidden one may be unknown.
        return {"label": weighted[0][0]["label"], "probabilities": torch.as_tensor(mixture)}

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`label` (B,) long; if any input is a mixture, `probabilities` (B, C), 0 where nothing is known."""
        targets = {"label": torch.stack([label["label"] for label in labels])}
        if any("probabilities" in label for label in labels):
            each = [label.get("probabilities", self._one_hot(label["label"])) for label in labels]
            targets["probabilities"] = torch.stack(each)
        return targets

    def plain(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """The five most likely classes with their probabilities, falling."""
        return _ranked(self.classes, prediction["probabilities"], _TOP)

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """The class; of a mixture its largest shares."""
        if "probabilities" in label:
            rows = _ranked(self.classes, label["probabilities"], _MIXED)
            return [Text(f"{row['probability']:.2f} {row['label']}") for row in rows if row["probability"] > 0]
        number = int(label["label"])
        return [Text(self.classes[number])] if number >= 0 else []

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """A probability of 1 for the class."""
        label = sample.target["label"]
        return {"probabilities": F.one_hot(label.clamp(min=0), len(self.classes)).float()}

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless `label` is a whole number of -1 up to the last class."""
        value = label.get("label")
        if value is None or value.ndim or value.is_floating_point() or not -1 <= int(value) < len(self.classes):
            raise ValueError(f"expected 'label', a whole number of -1 to {len(self.classes) - 1}, got {value}")

    def condensed(self, sample: Sample) -> dict[str, np.ndarray]:
        """The class."""
        present = self._one_hot(sample.target["label"])
        return condensed(present, present)

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        """Images by class."""
        return survey_classes("labels", self.classes, condensed)

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """The mean probability of the right class."""
        pairs = zip(predictions, samples, strict=True)
        return _mean_of(
            float(prediction["probabilities"][label])
            for prediction, sample in pairs
            if (label := int(sample.target["label"])) >= 0
        )

    def _one_hot(self, label: Tensor) -> Tensor:
        """(C,); zeros of an unknown label."""
        return F.one_hot(label.clamp(min=0), len(self.classes)).float() * (label >= 0)


class Labels(_Probabilities):
    """Any of the classes, each by itself.

    A label is `labels`, (C,) float: 1 if the class is there, 0 if not, NaN if that is not known; in an input that is
    made of several images, the share that has it. A prediction is `probabilities`, (C,) float, 0..1, of each class by
    itself.

    Args:
        info: Its `classes`.
    """

    def unknown(self) -> dict[str, Tensor]:
        """NaN for each class."""
        return {"labels": torch.full((len(self.classes),), torch.nan)}

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: the images of which a class is known to be there or not."""
        return targets["labels"].isfinite().any(1)

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        """The labels; of several images their mixture, in which a class is unknown if it is in one of them."""
        if len(parts) == 1:
            return {"labels": parts[0][0]["labels"]}
        return {"labels": torch.as_tensor(sum(weight * label["labels"].float() for label, weight in _weighted(parts)))}

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`labels` (B, C)."""
        return {"labels": torch.stack([label["labels"] for label in labels])}

    def plain(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """All classes with their probabilities, falling."""
        return _ranked(self.classes, prediction["probabilities"], len(self.classes))

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """The classes that are there."""
        return [Text(name) for name, value in zip(self.classes, label["labels"].tolist(), strict=True) if value == 1]

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """A probability of 1 for the classes that are there, of 0 for the others."""
        return {"probabilities": sample.target["labels"].float().nan_to_num()}

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless `labels` has 0 to 1 or NaN for each class."""
        _check_numbers("labels", label, len(self.classes), least=0, most=1, unknown=True)

    def condensed(self, sample: Sample) -> dict[str, np.ndarray]:
        """The classes that are there."""
        labels = sample.target["labels"]
        return condensed(labels == 1, labels.isfinite())

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        """Images by class."""
        return survey_classes("labels", self.classes, condensed)

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """The mean over known labels of the probability that is given to the truth."""
        found: list[float] = []
        for prediction, sample in zip(predictions, samples, strict=True):
            wanted = sample.target["labels"].float()
            right = 1 - (prediction["probabilities"].float() - wanted).abs()
            found += right[~wanted.isnan()].tolist()
        return _mean_of(found)


class Value:
    """Numbers, in the data's own units.

    A label is `value`, (K,) float, NaN where a number is not known. A prediction is `values`, (K,) float.

    Args:
        info: Its `classes` are the numbers' names.
    """

    # A picture made of two has no number in between.
    mixes: ClassVar[bool] = False
    findings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, info: DataInfo) -> None:
        self.names = info.classes

    def unknown(self) -> dict[str, Tensor]:
        """NaN for each number."""
        return {"value": torch.full((len(self.names),), torch.nan)}

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: the images of which a number is known."""
        return targets["value"].isfinite().any(1)

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        """The numbers as they are, however the image is cropped, scaled and mirrored."""
        (label, _), *_ = parts
        return {"value": label["value"]}

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`value` (B, K)."""
        return {"value": torch.stack([label["value"] for label in labels])}

    def restored(self, views: Parts) -> dict[str, Tensor]:
        """The mean of the views' numbers."""
        return _mean(views, "values")

    def plain(self, prediction: Mapping[str, Tensor]) -> dict[str, float]:
        """The numbers by name."""
        return dict(zip(self.names, prediction["values"].tolist(), strict=True))

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """The numbers that are known, by name."""
        pairs = zip(self.names, label["value"].tolist(), strict=True)
        return [Text(f"{name} {value:.3g}") for name, value in pairs if not math.isnan(value)]

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        """The numbers by name."""
        pairs = zip(self.names, prediction["values"].tolist(), strict=True)
        return [Bar(name, f"{value:.4g}") for name, value in pairs]

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """The numbers, 0 in place of those that are not known."""
        return {"values": sample.target["value"].float().nan_to_num()}

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless `value` has a number or NaN for each name."""
        _check_numbers("value", label, len(self.names), unknown=True)

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless there is a number for each name."""
        _check_numbers("values", prediction, len(self.names))

    def condensed(self, sample: Sample) -> dict[str, np.ndarray]:
        """The numbers that are known."""
        known = sample.target["value"].isfinite()
        return condensed(known, known)

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        """Known numbers by name."""
        return survey_classes("numbers", self.names, condensed)

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """The mean over known numbers of 1 / (1 + relative error)."""
        found: list[float] = []
        for prediction, sample in zip(predictions, samples, strict=True):
            wanted = sample.target["value"].float()
            # Relative, as numbers of different units stand beside each other.
            error = (prediction["values"].float() - wanted).abs() / (1 + wanted.abs())
            found += (1 / (1 + error[~error.isnan()])).tolist()
        return _mean_of(found)


def _weighted(parts: Parts) -> Iterator[tuple[Mapping[str, Tensor], float]]:
    """The labels of the images that can be seen, each with its share of what is seen."""
    seen = shares([placement for _, placement in parts])
    for (label, _), share in zip(parts, seen, strict=True):
        if share > 0:
            yield label, share / sum(seen)


def _mean(views: Parts, name: str) -> dict[str, Tensor]:
    if len(views) == 1:
        return dict(views[0][0])
    return {name: torch.stack([prediction[name] for prediction, _ in views]).mean(0)}


def _ranked(classes: Sequence[str], probabilities: Tensor, most: int) -> list[dict[str, Any]]:
    values, order = probabilities.topk(min(most, len(classes)))
    return [
        {"label": classes[number], "probability": value}
        for number, value in zip(order.tolist(), values.tolist(), strict=True)
    ]


def _check_numbers(
    name: str,
    tensors: Mapping[str, Tensor],
    count: int,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    unknown: bool = False,
) -> None:
    value = tensors.get(name)
    if value is None or value.shape != (count,):
        raise ValueError(f"expected {name!r} ({count},), got {'none' if value is None else tuple(value.shape)}")
    inside = value.isfinite() & (value >= least) & (value <= most) | (value.isnan() & unknown)
    if not inside.all():
        ranged = "numbers" if math.isinf(most) else f"numbers of {least:g} to {most:g}"
        raise ValueError(f"expected {name} to be {ranged}{' or NaN' if unknown else ''}, got {value.tolist()}")


def _mean_of(values: Iterable[float]) -> float | None:
    """None of no values."""
    found = list(values)
    return sum(found) / len(found) if found else None
