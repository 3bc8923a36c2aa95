"""The kind of target `mask`: a class for each pixel."""

# Shapes: B images, C classes, H and W of an original, h and w of an input, h' and w' of a head's scores.

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageColor
from torch import Tensor

from mtframe.data import DataInfo, Placement, Sample
from mtframe.errors import DataError
from mtframe.kinds import Survey
from mtframe.marks import Mark, Mask
from mtframe.palette import colour_of

from ._survey import condensed, survey_masks

# In place of a class number where the class is not known.
UNKNOWN = 255

# The share of a blended pixel that an image must have for its class to be the pixel's.
_CLEAR = 0.75

# Scores that are in memory at a time while the best class of each pixel is looked for: 4 MB, which caches hold.
_SCORES = 2**20

# Level of a PNG's compression: hardly larger than the smallest file, in a fifth of the time.
_COMPRESSION = 1


class Masks:
    """A class for each pixel.

    A label of an original is `mask` (H, W) uint8: class numbers, 255 where the class is not known. A mask without
    pixels says that nothing is known of an image. Collated it is `mask` (B, h, w) long.

    Of an input, what padding covers is not known. Where images are blended, a pixel has the class that makes up three
    quarters of it or more, and is not known where none does.

    A prediction is `mask` (H, W) uint8. Of an input a head says instead `scores` (C, h', w') float, of any resolution:
    the larger, the likelier; a mask stands for scores of 1 and 0. Brought back, bilinear, their mean over the views
    decides.

    Args:
        info: Its `classes`, at most 255.

    Raises:
        DataError: There are more.
    """

    mixes: ClassVar[bool] = True
    findings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, info: DataInfo) -> None:
        self.classes = info.classes
        if len(self.classes) > UNKNOWN:
            raise DataError(f"masks hold at most {UNKNOWN} classes, got {len(self.classes)}; make one of several")

    def unknown(self) -> dict[str, Tensor]:
        """A mask without pixels."""
        return {"mask": torch.empty(0, 0, dtype=torch.uint8)}

    def known(self, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,) bool: the images of which the class of a pixel is known."""
        return (targets["mask"] != UNKNOWN).flatten(1).any(1)

    def placed(self, parts: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """`mask` (h, w) uint8: of each pixel the class of the nearest one in the image that is seen there."""
        placed = torch.full(parts[0][1].input_size, UNKNOWN, dtype=torch.uint8)
        for label, placement in parts:
            if placement.share <= 1 - _CLEAR:
                continue
            below = placed[placement.seen_pixels]
            above = _seen(label["mask"], placement)[placement.seen_pixels]
            if placement.share >= _CLEAR:
                below.copy_(above)
            else:
                below[below != above] = UNKNOWN
        return {"mask": placed}

    def collate(self, labels: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`mask` (B, h, w) long."""
        return {"mask": torch.stack([label["mask"] for label in labels]).long()}

    def restored(self, views: Sequence[tuple[Mapping[str, Tensor], Placement]]) -> dict[str, Tensor]:
        """`mask` (H, W) uint8: the best class of each pixel of the original."""
        scored = [(self._scores(prediction), placement) for prediction, placement in views]
        (first, placement), *_ = scored
        height, width = placement.size
        mask = torch.empty(height, width, dtype=torch.uint8)
        step = max(1, _SCORES // (len(first) * width))
        for top in range(0, height, step):
            rows = slice(top, top + step)
            each = [place.restored_map(scores, rows) for scores, place in scored]
            # By numpy, which needs a quarter of the time for it.
            mask[rows] = torch.from_numpy(sum(each[1:], start=each[0]).numpy().argmax(0))
        return {"mask": mask}

    def plain(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """The classes that are there, with their shares of the picture, falling."""
        numbers = torch.bincount(prediction["mask"].flatten(), minlength=len(self.classes))
        shares, order = (numbers / numbers.sum()).sort(descending=True, stable=True)
        return [
            {"label": self.classes[number], "share": round(share, 6)}
            for number, share in zip(order.tolist(), shares.tolist(), strict=True)
            if share > 0
        ]

    def files(self, prediction: Mapping[str, Tensor]) -> dict[str, bytes]:
        """`mask.png`: the class numbers, with the colours that they are drawn in as a palette."""
        picture = Image.fromarray(prediction["mask"].numpy())
        picture.putpalette([part for number in range(len(self.classes)) for part in _rgb(number)])
        content = io.BytesIO()
        picture.save(content, "PNG", compress_level=_COMPRESSION)
        return {"mask.png": content.getvalue()}

    def label_marks(self, label: Mapping[str, Tensor]) -> list[Mark]:
        """The regions whose class is known."""
        return [self._mark(label["mask"])] if label["mask"].numel() else []

    def marks(self, prediction: Mapping[str, Tensor]) -> list[Mark]:
        """The regions of all classes."""
        return [self._mark(prediction["mask"])]

    def perfect(self, sample: Sample) -> dict[str, Tensor]:
        """The label; the first class where it says nothing."""
        mask = sample.target["mask"]
        whole = mask if mask.numel() else torch.full(sample.size, UNKNOWN, dtype=torch.uint8)
        return {"mask": whole.masked_fill(whole == UNKNOWN, 0)}

    def check_label(self, label: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless there is a class number or 255 for each pixel, or no pixel."""
        mask = label.get("mask")
        if mask is None or mask.shape != (0, 0):
            self._check(mask, size, unknown=True)

    def check_prediction(self, prediction: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        """Raises ValueError unless there is a class number for each pixel."""
        self._check(prediction.get("mask"), size, unknown=False)

    def condensed(self, sample: Sample) -> dict[str, np.ndarray]:
        """Pixels by class."""
        return condensed(sample.target["mask"], len(self.classes))

    def survey(self, condensed: Sequence[Mapping[str, np.ndarray]], scales: np.ndarray) -> Survey:
        """Images and pixels by class."""
        return survey_masks(self.classes, condensed)

    def rightness(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> float | None:
        """The mean over images of the part of their known pixels that have the right class."""
        parts: list[float] = []
        for prediction, sample in zip(predictions, samples, strict=True):
            wanted = sample.target["mask"]
            known = wanted != UNKNOWN
            if known.any():
                parts.append(float((prediction["mask"] == wanted)[known].float().mean()))
        return sum(parts) / len(parts) if parts else None

    def _scores(self, prediction: Mapping[str, Tensor]) -> Tensor:
        """(C, h', w') float."""
        if "scores" in prediction:
            return prediction["scores"].float()
        return F.one_hot(prediction["mask"].long(), len(self.classes)).movedim(-1, 0).float()

    def _mark(self, mask: Tensor) -> Mask:
        return Mask(mask, dict(enumerate(self.classes)))

    def _check(self, mask: Tensor | None, size: tuple[int, int], *, unknown: bool) -> None:
        if mask is None or mask.shape != size or mask.dtype != torch.uint8:
            got = "none" if mask is None else f"{tuple(mask.shape)} {mask.dtype}"
            raise ValueError(f"expected mask {size} torch.uint8, got {got}")
        wrong = mask[(mask >= len(self.classes)) & ~(unknown & (mask == UNKNOWN))]
        if len(wrong):
            either = f" or {UNKNOWN}" if unknown else ""
            raise ValueError(f"expected classes of 0 to {len(self.classes) - 1}{either}, got {wrong.unique().tolist()}")


def _seen(mask: Tensor, placement: Placement) -> Tensor:
    """(h, w): what of an original's mask is seen in an input."""
    if not mask.numel():
        return torch.full(placement.input_size, UNKNOWN, dtype=torch.uint8)
    return placement.placed_map(mask, UNKNOWN)


def _rgb(number: int) -> tuple[int, ...]:
    return ImageColor.getrgb(colour_of(number))
