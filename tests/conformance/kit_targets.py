"""A small kind of target that keeps its contract, and of each check one that breaks it and no other.

Every class here is offered by a distribution of its own, made up by the tests, with a data set of its labels.
"""

# Shapes: B images, N points of one image, M points (padded).

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtframe.data import DataInfo, Placement, Sample, covers
from mtframe.kinds import Survey
from mtframe.marks import Mark, Point, Polyline

Parts = Sequence[tuple[Mapping[str, Tensor], Placement]]

CLASSES = ("red", "green", "blue")


class GoodBare:
    """Points of three classes: `points` (N, 2) and `labels` (N,); nothing is known where a point is NaN."""

    mixes = True

    def __init__(self, info: DataInfo) -> None:
        self.classes = info.classes

    def unknown(self) -> dict[str, Tensor]:
        return {"points": torch.full((1, 2), torch.nan), "labels": torch.zeros(1, dtype=torch.long)}

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        return targets["known"]

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        found, labels, known = [], [], True
        for (label, placement), above in zip(parts, covers([placement for _, placement in parts]), strict=True):
            points = placement.points(label["points"])
            seen = self.seen(points, placement) & ~label["points"].isnan().any(1)
            for window in above:
                seen &= ~self.within(points, window)
            found.append(points[seen])
            labels.append(self.turned(label["labels"], placement, 1)[seen])
            # Of a part there is no way to say that nothing is known of it.
            known &= not bool(label["points"].isnan().any())
        return {"points": torch.cat(found), "labels": torch.cat(labels), "known": torch.tensor(known)}

    def seen(self, points: Tensor, placement: Placement) -> Tensor:
        return self.within(points, placement.seen)

    def within(self, points: Tensor, window: Sequence[float]) -> Tensor:
        low, high = torch.tensor(window).chunk(2)
        return ((points >= low) & (points <= high)).all(1)

    def turned(self, labels: Tensor, placement: Placement, step: int) -> Tensor:
        return labels

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        numbers = torch.tensor([len(label["points"]) for label in labels])
        points = pad_sequence([label["points"] for label in labels], batch_first=True)
        return {
            "points": points,
            "labels": pad_sequence([label["labels"] for label in labels], batch_first=True),
            "valid": torch.arange(points.shape[1]) < numbers[:, None],
            "known": torch.stack([label["known"] for label in labels]),
        }

    def restored(self, views: Parts) -> dict[str, Tensor]:
        found: list[tuple[Tensor, Tensor]] = []
        for prediction, placement in views:
            labels = self.turned(prediction["labels"], placement, -1)
            for point, label in zip(self.back(prediction["points"], placement), labels, strict=True):
                if not any(label == its and (point - other).norm() < 1 for other, its in found):
                    found.append((point, label))
        points, labels = zip(*found, strict=True)
        return {"points": torch.stack(points), "labels": torch.stack(labels)}

    def back(self, points: Tensor, placement: Placement) -> Tensor:
        return placement.restored_points(points)

    def plain(self, prediction: Mapping[str, Tensor]) -> Any:
        rows = zip(prediction["points"].tolist(), prediction["labels"].tolist(), strict=True)
        return [{"class": self.classes[label], "at": point} for point, label in rows]

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        rows = zip(label["points"].tolist(), label["labels"].tolist(), strict=True)
        return [Point((x, y), self.classes[number], number) for (x, y), number in rows]

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        return self.label_marks(prediction)

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        kept = ~sample.target["points"].isnan().any(1)
        return {"points": sample.target["points"][kept], "labels": sample.target["labels"][kept]}


class GoodPoints(GoodBare):
    """The same with all that is optional."""

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        if "points" not in label or label["points"].shape[1:] != (2,):
            raise ValueError(f"expected points (N, 2), got {label.get('points')}")

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        self.check_label(prediction, size)

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        marks = list[float]()
        for prediction, sample in zip(predictions, samples, strict=True):
            apart = torch.cdist(sample.target["points"], prediction["points"])
            alike = sample.target["labels"][:, None] == prediction["labels"]
            near = (1 - apart / 10).clamp(min=0) * alike
            marks += near.amax(1).tolist() if near.shape[1] else [0.0] * len(near)
        return sum(marks) / len(marks) if marks else None

    def files(self, prediction: Mapping[str, Tensor]) -> dict[str, bytes]:
        return {"points.txt": str(prediction["points"].tolist()).encode()}

    def embedding(self, prediction: Mapping[str, Tensor]) -> Tensor:
        return F.normalize(prediction["points"].mean(0), dim=0)


class KnowingAll(GoodPoints):
    """Takes nothing known for nothing there."""

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        return torch.ones_like(targets["known"])


class Flattening(GoodPoints):
    """Makes one list of the points of all images."""

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {**super().collate(labels), "points": torch.cat([label["points"] for label in labels])}


class MovingLabels(GoodPoints):
    """Moves the label itself."""

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        for label, _ in parts:
            label["points"].add_(0.5)
        return super().placed(parts)


class Unpadding(GoodPoints):
    """Forgets padding on the way back."""

    def restored(self, views: Parts) -> dict[str, Tensor]:
        (prediction, placement), *_ = views
        (a, _, _), (_, e, _) = placement.matrix
        shift = torch.tensor([placement.input_size[1] if a < 0 else 0.0, 0.0])
        return {**prediction, "points": (prediction["points"] - shift) / torch.tensor([a, e])}


class Cycling(GoodPoints):
    """Takes mirrored red for green, green for blue and blue for red."""

    def turned(self, labels: Tensor, placement: Placement, step: int) -> Tensor:
        return (labels + step) % len(self.classes) if placement.mirrored else labels


class LastOnly(GoodPoints):
    """Sees one image of several."""

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        return super().placed(parts[-1:])


class OneOff(GoodPoints):
    """Is off by one pixel in the mirror, there and back."""

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        return super().placed([(label, self.shifted(placement)) for label, placement in parts])

    def back(self, points: Tensor, placement: Placement) -> Tensor:
        return super().back(points, self.shifted(placement))

    def shifted(self, placement: Placement) -> Placement:
        (a, b, c), below = placement.matrix
        return replace(placement, matrix=((a, b, c - placement.mirrored), below))


class HalfKnowing(GoodPoints):
    """Takes the unknown part of an input for one without points."""

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        known = any(not label["points"].isnan().any() for label, _ in parts)
        return {**super().placed(parts), "known": torch.tensor(known)}


class SeeingThrough(GoodPoints):
    """Sees what is covered."""

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        each = [super(SeeingThrough, self).placed([part]) for part in parts]
        return {
            "points": torch.cat([label["points"] for label in each]),
            "labels": torch.cat([label["labels"] for label in each]),
            "known": torch.stack([label["known"] for label in each]).any(),
        }


class Doubling(GoodPoints):
    """Finds everything once in each view."""

    def restored(self, views: Parts) -> dict[str, Tensor]:
        each = [super(Doubling, self).restored([view]) for view in views]
        return {name: torch.cat([view[name] for view in each]) for name in each[0]}


class FirstView(GoodPoints):
    """Looks at one view of several."""

    def restored(self, views: Parts) -> dict[str, Tensor]:
        return super().restored(views[:1])


class Numbering(GoodPoints):
    """Gives a dictionary by numbers, which JSON makes text."""

    def plain(self, prediction: Mapping[str, Tensor]) -> Any:
        return dict(enumerate(prediction["points"].tolist()))


class TensorsAsJson(GoodPoints):
    """Gives tensors for numbers."""

    def plain(self, prediction: Mapping[str, Tensor]) -> Any:
        return list(prediction["points"])


class Unclipped(GoodPoints):
    """Sees what is beyond the input."""

    def seen(self, points: Tensor, placement: Placement) -> Tensor:
        return torch.ones(len(points), dtype=torch.bool)


class Sketching(GoodPoints):
    """Draws pairs of numbers."""

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        return prediction["points"].tolist()


class Pessimistic(GoodPoints):
    """Rates what is perfect lowest."""

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        found = super().rightness(predictions, samples)
        return None if found is None else 1 - found


class Trusting(GoodPoints):
    """Takes any prediction."""

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        pass


class Suffixless(GoodPoints):
    """Does not say what its files are."""

    def files(self, prediction: Mapping[str, Tensor]) -> dict[str, bytes]:
        return {"points": b"some"}


class Lengthy(GoodPoints):
    """Gives embeddings of any length."""

    def embedding(self, prediction: Mapping[str, Tensor]) -> Tensor:
        return prediction["points"].mean(0)


class Miscounting(GoodPoints):
    """Counts one point, however many there are."""

    findings = ()

    def condensed(self, sample: Sample) -> dict[str, np.ndarray]:
        return {"labels": sample.target["labels"].numpy(), "known": ~sample.target["points"].isnan().any(1).numpy()}

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        labels = np.concatenate([one["labels"][one["known"]] for one in condensed])
        counts = dict(zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)).tolist(), strict=True))
        return Survey("points", counts, 1)


class UnpicklableTarget(GoodPoints):
    """Holds a function without a name."""

    def __init__(self, info: DataInfo) -> None:
        super().__init__(info)
        self.name = lambda number: info.classes[number]


class RatingInVain(GoodBare):
    """Rates predictions by a name that nobody calls."""

    def rightnes(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        return None


class GoodStrokes(GoodPoints):
    """The same of strokes: `points` (N, 4), x and y of both ends; whole ones, however little is seen."""

    def unknown(self) -> dict[str, Tensor]:
        return {**super().unknown(), "points": torch.full((1, 4), torch.nan)}

    def placed(self, parts: Parts) -> dict[str, Tensor]:
        found, labels, known = [], [], True
        for (label, placement), above in zip(parts, covers([placement for _, placement in parts]), strict=True):
            strokes = placement.points(label["points"].unflatten(1, (2, 2)))
            along = strokes[:, :1].lerp(strokes[:, 1:], torch.linspace(0, 1, 21)[:, None])
            seen = self.inside(along, placement.seen)
            for window in above:
                seen &= ~self.inside(along, window)
            part = seen.float().mean(1)
            kept = (part > 0) & (part >= self.asked(placement))
            found.append(strokes.flatten(1)[kept])
            labels.append(label["labels"][kept])
            known &= not bool(label["points"].isnan().any())
        return {"points": torch.cat(found), "labels": torch.cat(labels), "known": torch.tensor(known)}

    def inside(self, points: Tensor, window: Sequence[float]) -> Tensor:
        return self.within(points.flatten(0, 1), window).unflatten(0, points.shape[:2])

    def asked(self, placement: Placement) -> float:
        return placement.min_visible or 0.0

    def back(self, points: Tensor, placement: Placement) -> Tensor:
        return super().back(points.unflatten(1, (2, 2)), placement).flatten(1)

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        rows = zip(label["points"].unflatten(1, (2, 2)).tolist(), label["labels"].tolist(), strict=True)
        return [Polyline([(x, y) for x, y in ends], text=self.classes[n], colour=n) for ends, n in rows]

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        if "points" not in label or label["points"].shape[1:] != (4,):
            raise ValueError(f"expected points (N, 4), got {label.get('points')}")


class Uncut(GoodStrokes):
    """Asks for strokes of which hardly anything is seen."""

    def asked(self, placement: Placement) -> float:
        return 0.0


class Overasking(GoodStrokes):
    """Leaves aside what is seen whole."""

    def asked(self, placement: Placement) -> float:
        return 0.0 if placement.min_visible is None else 1.1


class Points:
    """Pictures of one grey each, and some points on them."""

    target = "points"
    splits = ("train",)
    numbers = 2

    def __init__(self, split: str) -> None:
        self.info, self.decode_size = DataInfo(self.target, CLASSES), None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng(index)
        height, width = 40, 48 + 4 * (index % 2)
        points = torch.from_numpy(rng.uniform(8, 32, (index % 4 + 1, self.numbers))).float()
        label = {"points": points, "labels": torch.from_numpy(rng.integers(3, size=len(points)))}
        image = torch.full((3, height, width), 20 * index, dtype=torch.uint8)
        return Sample(image, label, (height, width), index, f"points {index}")


def data_of(name: str) -> str:
    """The name, here, of the data set whose labels are of the kind `name`."""
    made, numbers = f"{name}Data", 4 if issubclass(globals()[name], GoodStrokes) else 2
    members = {"__doc__": Points.__doc__, "target": name.lower(), "numbers": numbers, "__module__": __name__}
    globals()[made] = type(made, (Points,), members)
    return made
