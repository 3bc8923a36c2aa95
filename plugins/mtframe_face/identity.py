"""The kind of target `identity`: who is on the picture."""

# Shapes: B images, D numbers in an embedding.

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtframe.data import DataInfo, Placement, Sample
from mtframe.kinds import Survey
from mtframe.marks import Mark, Text

from ._survey import condensed, survey_people

# Numbers in the embedding of a perfect prediction: enough that those of two people are nearly orthogonal.
_DIM = 128


class Identity:
    """Who is on the picture: one person of the training's, or a stranger.

    A label is `label`, () long: the number of the person, -1 for somebody whom training does not know. A prediction is
    `embedding`, (D,) float of unit length: the dot product of two is their similarity.

    Args:
        info: Its `classes` are the people.
    """

    mixes: ClassVar[bool] = False
    findings: ClassVar[tuple[str, ...]] = ("people-of-one-image",)

    def __init__(self, info: DataInfo) -> None:
        self.people = info.classes

    def unknown(self) -> dict[str, Tensor]:
        """A label of -1."""
        return {"label": torch.tensor(-1)}

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: the images of a person."""
        return targets["label"] >= 0

    def placed(self, parts: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """The label, wherever the face is."""
        (label, _), *_ = parts
        return {"label": label["label"]}

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`label` (B,) long."""
        return {"label": torch.stack([label["label"] for label in labels])}

    def restored(self, views: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """The sum of the views' embeddings, of unit length."""
        if len(views) == 1:
            return dict(views[0][0])
        return {"embedding": F.normalize(torch.stack([view["embedding"] for view, _ in views]).sum(0), dim=0)}

    def plain(self, prediction: Mapping[str, Tensor]) -> dict[str, list[float]]:
        """The embedding."""
        return {"embedding": prediction["embedding"].tolist()}

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """The person's name."""
        number = int(label["label"])
        return [Text(self.people[number])] if number >= 0 else []

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        """None: an embedding alone shows nothing."""
        return []

    def embedding(self, prediction: Mapping[str, Tensor]) -> Tensor:
        """(D,), of unit length."""
        return prediction["embedding"]

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """A direction for each person: by label, or where it is not known by the folder that the image is in."""
        label = int(sample.target["label"])
        person = str(label) if label >= 0 else str(PurePosixPath(sample.id).parent)
        generator = torch.Generator().manual_seed(zlib.crc32(person.encode()))
        return {"embedding": F.normalize(torch.randn(_DIM, generator=generator), dim=0)}

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless `label` is a whole number of -1 up to the last person."""
        value = label.get("label")
        if value is None or value.ndim or value.is_floating_point() or not -1 <= int(value) < len(self.people):
            raise ValueError(f"expected 'label', a whole number of -1 to {len(self.people) - 1}, got {_shown(value)}")

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless `embedding` is of unit length."""
        value = prediction.get("embedding")
        if value is None or value.ndim != 1:
            raise ValueError(f"expected 'embedding' (D,), got {_shown(value)}")
        length = value.float().norm().item()
        # bf16 has steps of 1/256.
        if abs(length - 1) > 1e-2:
            raise ValueError(f"expected an embedding of unit length, got length {length:.3g}")

    def condensed(self, sample: Sample) -> dict[str, np.ndarray]:
        """Who it is."""
        return condensed(sample)

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        """People by number of images."""
        return survey_people(condensed)

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """How much more alike two images of one person are than two of different people, on average."""
        labels = torch.stack([sample.target["label"] for sample in samples])
        embeddings = F.normalize(torch.stack([prediction["embedding"].float() for prediction in predictions]))
        alike, known = embeddings @ embeddings.T, labels >= 0
        both = known[:, None] & known & ~torch.eye(len(labels), dtype=torch.bool)
        same = labels[:, None] == labels
        if not (both & same).any() or not (both & ~same).any():
            return None
        return float(alike[both & same].mean() - alike[both & ~same].mean())


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value.tolist()!r}" if value.numel() < 5 else f"shape {tuple(value.shape)}"
