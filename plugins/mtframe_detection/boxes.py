"""The kind of target `boxes`: rectangles around things of known classes."""

# Shapes: B images, N boxes of one image, M boxes and K regions to ignore (padded).

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms, box_iou, nms

from mtframe.data import DataInfo, Placement, Sample, covers
from mtframe.kinds import Survey
from mtframe.marks import Box, Mark

from ._survey import condensed, survey_boxes

# Boxes of one class that several views see are one thing from this IoU on, unless the head says otherwise.
_SAME_BOX = 0.6

# Boxes of different classes that overlap more than this (IoU) are drawn as one, the surer one.
_SAME_THING = 0.6

# Pixels that must be left on each side of a thing that is cut off in training, for it to count.
_LEAST_SIDE = 2.0

# Square pixels: less than this is rounding, not something left of a box.
_NOTHING = 1e-3

# Further out than any image: what infinite boxes are clipped to, since infinity times 0 is no number.
_FAR = 1e6

# How far a region without end reaches beyond the input, in pixels: a feature map's last row and column have points
# beyond the edge.
_RIM = 1024.0

# How far a region of which nothing is known reaches beyond its window, in pixels, so that what is on the edge is in it.
_EDGE = 1e-3


class Boxes:
    """Rectangles around things of known classes.

    A label of an original is `boxes` (N, 4) XYXY in its pixels, `labels` (N,) long and `crowd` (N,) bool: regions of
    many things that are neither wanted nor punished. A crowd without end says that nothing is known of an image;
    no box at all, that nothing is on it.

    Collated it is `boxes` (B, M, 4) in pixels of the input, `labels` (B, M), `valid` (B, M) bool; regions to ignore,
    `ignore` (B, K, 4) and `ignore_valid` (B, K) bool: crowds, and things of which too little is seen; and `known` (B,)
    bool.

    A prediction is `boxes` (N, 4) XYXY, `scores` (N,) 0..1 and `labels` (N,) long, strongest first.

    Args:
        info: Its `classes`.
    """

    mixes: ClassVar[bool] = True
    findings: ClassVar[tuple[str, ...]] = ("boxes-too-small",)

    def __init__(self, info: DataInfo) -> None:
        self.classes = info.classes

    def unknown(self) -> dict[str, Tensor]:
        """A crowd without end."""
        return {
            "boxes": torch.tensor([[-torch.inf, -torch.inf, torch.inf, torch.inf]], dtype=torch.float64),
            "labels": torch.zeros(1, dtype=torch.long),
            "crowd": torch.ones(1, dtype=torch.bool),
        }

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: the images that have been labelled, if only with no box."""
        return targets["known"]

    def placed(self, parts: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """What of the boxes is seen: `boxes` (N, 4), `labels` (N,), `ignore` (K, 4) and `known` () bool."""
        boxes, labels, ignore, known = [], [], [], False
        hidden_by = covers([placement for _, placement in parts])
        for number, ((label, placement), above) in enumerate(zip(parts, hidden_by, strict=True)):
            original = label["boxes"].double()
            whole = placement.boxes(original.clamp(-_FAR, _FAR)).float()
            low, high = torch.tensor(placement.seen).float().chunk(2)
            seen = torch.cat([whole[:, :2].maximum(low), whole[:, 2:].minimum(high)], dim=1)
            left = (seen[:, 2:] - seen[:, :2]).clamp(min=0)
            visible = left.prod(dim=1) - _overlap(seen, above)
            inside = visible > _NOTHING
            cut = placement.min_visible is not None
            area = (whole[:, 2:] - whole[:, :2]).prod(dim=1)
            # Of a blend each image shows through in part, and what hardly does so does not count.
            through = placement.share * math.prod(
                1 - other.share for _, other in parts[number + 1 :] if other.share < 1
            )
            enough = visible * through >= (placement.min_visible or 0.0) * area
            clear = inside & enough & (left >= _LEAST_SIDE * cut).all(dim=1) & ~label["crowd"]
            boxes.append(seen[clear])
            labels.append(label["labels"][clear])
            endless = original.isinf().any(dim=1)
            ignore += [seen[~clear & inside & ~endless], _without_end(placement).expand(int(endless.sum()), 4)]
            known |= not bool(endless.any())
        if not known:
            # One region, not one a window: a proposal may lie in all of them, in none by half.
            ignore = [_without_end(replace(parts[0][1], window=None))]
        return {
            "boxes": torch.cat(boxes), "labels": torch.cat(labels), "ignore": torch.cat(ignore),
            "known": torch.tensor(known),
        }  # fmt: skip

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Pads each image's boxes to the most of the batch, with masks."""
        names = ("boxes", "labels", "ignore")
        targets = {name: pad_sequence([label[name] for label in labels], batch_first=True) for name in names}
        for mask, name in (("valid", "boxes"), ("ignore_valid", "ignore")):
            numbers = torch.tensor([len(label[name]) for label in labels])
            targets[mask] = torch.arange(targets[name].shape[1]) < numbers[:, None]
        targets["known"] = torch.stack([label["known"] for label in labels])
        return targets

    def restored(self, views: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """The boxes in the original, clipped to it; of several views, the surest box of each thing and class."""
        each = [{**prediction, "boxes": place.restored_boxes(prediction["boxes"])} for prediction, place in views]
        if len(each) == 1:
            return each[0]
        boxes, scores, labels = (torch.cat([view[name] for view in each]) for name in ("boxes", "scores", "labels"))
        kept = batched_nms(boxes, scores, labels, _SAME_BOX)
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}

    def plain(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Each box with its class and score; not rounded, so that AP of the JSON is that of `mtframe evaluate`."""
        rows = zip(*(prediction[name].tolist() for name in ("boxes", "scores", "labels")), strict=True)
        return [{"label": self.classes[label], "score": score, "box": box} for box, score, label in rows]

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """Boxes that are to be found, and in grey the regions where nothing is asked for."""
        crowd = label.get("crowd")
        wanted = torch.ones(len(label["boxes"]), dtype=torch.bool) if crowd is None else ~crowd
        ignored = label["ignore"] if crowd is None else label["boxes"][crowd]
        # Nobody can draw a rectangle without end.
        ignored = ignored.clamp(-_RIM, _FAR)
        pairs = zip(label["boxes"][wanted].tolist(), label["labels"][wanted].tolist(), strict=True)
        return [
            *(Box(tuple(box), self.classes[number], number) for box, number in pairs),
            *(Box(tuple(box), "ignored", None) for box in ignored.tolist()),
        ]

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        """The boxes; of those of several classes on one thing the surer one, as two names on it are hard to read."""
        shown = nms(prediction["boxes"].float(), prediction["scores"].float(), _SAME_THING)
        rows = zip(*(prediction[name][shown].tolist() for name in ("boxes", "scores", "labels")), strict=True)
        return [Box(tuple(box), f"{self.classes[label]} {score:.2f}", label, score) for box, score, label in rows]

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """Each box that is no crowd, with a score of 1."""
        target = sample.target
        kept = ~target["crowd"] if "crowd" in target else torch.ones(len(target["boxes"]), dtype=torch.bool)
        return {
            "boxes": target["boxes"][kept], "scores": torch.ones(int(kept.sum())), "labels": target["labels"][kept],
        }  # fmt: skip

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless the boxes lie in the image, each with a class and whether it is a crowd."""
        boxes, labels = _boxes_and_labels(label)
        crowd = label.get("crowd")
        if crowd is None or crowd.shape != labels.shape or crowd.dtype != torch.bool:
            raise ValueError("expected crowd (N,) bool, whether each box is one")
        finite = boxes.isfinite().all(dim=1) | ~crowd
        self._check(boxes[finite], labels[finite], size)

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless the boxes lie in the image, each with a class and a score of 0 to 1."""
        boxes, labels = _boxes_and_labels(prediction)
        self._check(boxes, labels, size)
        scores = prediction.get("scores")
        if scores is None or scores.shape != labels.shape:
            raise ValueError("expected a score for each box")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"expected scores of 0 to 1, got {_span(scores)}")

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """The mean over boxes of the best score times IoU among predictions of the right class."""
        found: list[float] = []
        for prediction, sample in zip(predictions, samples, strict=True):
            wanted = self.perfect(sample)
            overlap = box_iou(wanted["boxes"].float(), prediction["boxes"].float())
            right = wanted["labels"][:, None] == prediction["labels"]
            marks = overlap * right * prediction["scores"].float()
            found += [float(row.max()) if len(row) else 0.0 for row in marks]
        return sum(found) / len(found) if found else None

    def condensed(self, sample: Sample) -> dict[str, np.ndarray]:
        """The boxes, and the size of their image."""
        return condensed(sample)

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        """Boxes by class, size and place; those that become too small to be seen."""
        return survey_boxes(self.classes, condensed, scales)

    def _check(self, boxes: Tensor, labels: Tensor, size: tuple[int, int]) -> None:
        """Raises ValueError unless boxes (N, 4) lie in the image, and labels (N,) are classes."""
        if not len(boxes):
            return
        height, width = size
        # Half a pixel: what was rounded is not outside.
        if not ((boxes[:, :2] >= -0.5).all() and (boxes[:, 2:] <= boxes.new_tensor([width, height]) + 0.5).all()):
            reach = f"{_span(boxes[:, 0::2])} by {_span(boxes[:, 1::2])}"
            raise ValueError(f"expected boxes inside the image, 0..{width} by 0..{height} pixels, got {reach}")
        if not (boxes[:, :2] <= boxes[:, 2:]).all():
            raise ValueError("expected boxes XYXY, got one whose end is before its start")
        if labels.is_floating_point() or not ((labels >= 0) & (labels < len(self.classes))).all():
            raise ValueError(f"expected labels of 0 to {len(self.classes) - 1}, got {_span(labels)}")


def _boxes_and_labels(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) and labels (N,); raises ValueError where one is missing or has another shape."""
    boxes, labels = tensors.get("boxes"), tensors.get("labels")
    if boxes is None or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"expected boxes (N, 4), got {'none' if boxes is None else tuple(boxes.shape)}")
    if labels is None or labels.shape != boxes.shape[:1]:
        raise ValueError("expected a label for each box")
    return boxes, labels


def _overlap(boxes: Tensor, windows: Sequence[Sequence[float]]) -> Tensor:
    """(N,) square pixels of each of (N, 4) boxes that lie in windows, of which no two overlap."""
    total = torch.zeros(len(boxes))
    for window in windows:
        low, high = torch.tensor(window).float().chunk(2)
        total += (boxes[:, 2:].minimum(high) - boxes[:, :2].maximum(low)).clamp(min=0).prod(dim=1)
    return total


def _without_end(placement: Placement) -> Tensor:
    """(1, 4): where an image is seen of which nothing is known; without an end where the input ends."""
    height, width = placement.input_size
    x1, y1, x2, y2 = placement.seen
    low = (side - (_RIM if side <= 0 else _EDGE) for side in (x1, y1))
    high = (side + (_RIM if side >= end else _EDGE) for side, end in ((x2, width), (y2, height)))
    return torch.tensor([[*low, *high]])


def _span(values: Tensor) -> str:
    return f"{values.min().item():g}..{values.max().item():g}" if values.numel() else "nothing"
