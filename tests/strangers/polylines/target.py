"""The kind of target `polylines`: lines of several points each, of known classes."""

# Shapes: B images, N lines of one image, M lines (padded), P points of a line (padded).

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtframe.data import DataInfo, Placement, Sample, covers
from mtframe.marks import Mark, Polyline

from .lines import apart, pieces_of, stacked, unpadded

# Pixels, on average, by which two views of one line may differ.
_SAME_LINE = 3.0

# Pixels from a line at which a prediction is no longer right at all.
_WRONG = 8.0


class Polylines:
    """Lines of several points each, of known classes.

    A label is `points` (N, P, 2) float, x and y in pixels, and `labels` (N,) long. A line has as many points as it
    needs, and repeats its last one up to P. No line says that none is there; a line of NaN, that nothing is known.

    In an input it also has `sure` (N,) bool: false for pieces of lines of which too little is seen. Of an input of
    which one part is unknown, all is: there is no way to write down where. Collated it is
    `points` (B, M, P, 2), `labels` (B, M), `sure` (B, M), `valid` (B, M), false for padding, and `known` (B,) bool.

    A prediction is `points` (N, P, 2), `labels` (N,) and `scores` (N,) 0..1.

    Args:
        info: Its `classes`.
    """

    mixes: ClassVar[bool] = True

    def __init__(self, info: DataInfo) -> None:
        self.classes = info.classes

    def unknown(self) -> dict[str, Tensor]:
        """One line of NaN."""
        return {"points": torch.full((1, 1, 2), torch.nan), "labels": torch.zeros(1, dtype=torch.long)}

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: the images that somebody has looked at."""
        return targets["known"]

    def placed(self, parts: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """The pieces of lines that are seen in the input."""
        lines, labels, sure, known = list[Tensor](), list[int](), list[bool](), True
        hidden = covers([placement for _, placement in parts])
        for (label, placement), above in zip(parts, hidden, strict=True):
            if label["points"].isnan().any():
                known = False
                continue
            for line, number in zip(placement.points(label["points"]), label["labels"].tolist(), strict=True):
                pieces = pieces_of(line, placement.seen, above)
                enough = sum(map(length, pieces)) >= (placement.min_visible or 0.0) * length(line)
                lines += pieces
                labels += [number] * len(pieces)
                sure += [enough] * len(pieces)
        return {
            "points": stacked(lines),
            "labels": torch.tensor(labels, dtype=torch.long),
            "sure": torch.tensor(sure, dtype=torch.bool),
            "known": torch.tensor(known),
        }

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pads images to the most lines, and lines to the most points, of the batch."""
        most = max(len(label["points"]) for label in labels)
        longest = max(label["points"].shape[1] for label in labels)
        points = torch.zeros(len(labels), most, longest, 2)
        numbers = torch.zeros(len(labels), most, dtype=torch.long)
        sure, valid = (torch.zeros(len(labels), most, dtype=torch.bool) for _ in range(2))
        for image, label in enumerate(labels):
            count = len(label["points"])
            points[image, :count] = stacked(list(label["points"]), longest)
            numbers[image, :count], sure[image, :count], valid[image, :count] = label["labels"], label["sure"], True
        known = torch.stack([label["known"] for label in labels])
        return {"points": points, "labels": numbers, "sure": sure, "valid": valid, "known": known}

    def restored(self, views: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """The lines in the original; of several views, of each line the surest one."""
        each = [{**said, "points": placement.restored_points(said["points"])} for said, placement in views]
        if len(each) == 1:
            return each[0]
        found = [
            (float(score), int(label), line)
            for said in each
            for score, label, line in zip(said["scores"], said["labels"], said["points"], strict=True)
        ]
        kept: list[tuple[float, int, Tensor]] = []
        for score, label, line in sorted(found, key=lambda one: -one[0]):
            if not any(label == other and float(apart(line, near).mean()) < _SAME_LINE for _, other, near in kept):
                kept.append((score, label, line))
        return {
            "points": stacked([line for _, _, line in kept]),
            "labels": torch.tensor([label for _, label, _ in kept], dtype=torch.long),
            "scores": torch.tensor([score for score, _, _ in kept]),
        }

    def plain(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Each line with its class, its score and its points."""
        rows = zip(prediction["points"], prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True)
        return [
            {
                "label": self.classes[label],
                "score": round(score, 4),
                "points": [[round(x, 2), round(y, 2)] for x, y in unpadded(line).tolist()],
            }
            for line, label, score in rows
        ]

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """The lines, in grey those of which too little is seen."""
        sure = label.get("sure", torch.ones(len(label["labels"]), dtype=torch.bool)).tolist()
        rows = zip(label["points"], label["labels"].tolist(), sure, strict=True)
        return [
            Polyline(_pairs(line), text=self.classes[number], colour=number if its else None)
            for line, number, its in rows
            if not line.isnan().any()
        ]

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        """The lines with their scores."""
        rows = zip(prediction["points"], prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True)
        return [
            Polyline(_pairs(line), text=f"{self.classes[label]} {score:.2f}", colour=label, score=score)
            for line, label, score in rows
        ]

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """Each line that is sure, with a score of 1."""
        points, labels = sample.target["points"], sample.target["labels"]
        kept = sample.target.get("sure", torch.ones(len(labels), dtype=torch.bool)) & ~points.isnan().any(2).any(1)
        return {"points": points[kept], "labels": labels[kept], "scores": torch.ones(int(kept.sum()))}

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless there is a class for each line, and all points are in the image, or NaN."""
        points, labels = label.get("points"), label.get("labels")
        if points is None or points.ndim != 3 or points.shape[2] != 2:
            raise ValueError(f"expected points (N, P, 2), got {'none' if points is None else tuple(points.shape)}")
        if labels is None or labels.shape != points.shape[:1]:
            raise ValueError("expected a label for each line")
        if not ((labels >= 0) & (labels < len(self.classes))).all():
            raise ValueError(f"expected labels of 0 to {len(self.classes) - 1}, got {labels.tolist()}")
        limit = torch.tensor([size[1], size[0]]) + 0.5
        if not (points.isnan() | ((points >= -0.5) & (points <= limit))).all():
            raise ValueError(f"expected points in {size[1]} x {size[0]} pixels, got {points.amin()} to {points.amax()}")

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless it has the form of a label, with a score of 0 to 1 for each line."""
        self.check_label(prediction, (10**6, 10**6))
        scores = prediction.get("scores")
        if scores is None or scores.shape != prediction["labels"].shape or not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"expected a score of 0 to 1 for each line, got {scores}")

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """The mean over lines of how near the nearest predicted one of its class is, times that one's score."""
        found = list[float]()
        for prediction, sample in zip(predictions, samples, strict=True):
            wanted = self.perfect(sample)
            for line, label in zip(wanted["points"], wanted["labels"], strict=True):
                near = [
                    float(score * (1 - apart(line, other) / _WRONG).clamp(min=0).mean())
                    for other, its, score in zip(*(prediction[name] for name in _NAMES), strict=True)
                    if its == label
                ]
                found.append(max(near, default=0.0))
        return sum(found) / len(found) if found else None


_NAMES = ("points", "labels", "scores")


def length(line: Tensor) -> float:
    """Of a (P, 2) line, in pixels."""
    return float((line[1:] - line[:-1]).norm(dim=1).sum())


def _pairs(line: Tensor) -> list[tuple[float, float]]:
    return [(x, y) for x, y in unpadded(line).tolist()]
