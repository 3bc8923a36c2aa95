"""Boxes of many images as arrays, whatever files they were read from, and the data sets that hold them."""

# Shapes: I images, A annotations in the order of their images, N boxes of one image.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mtframe.data import DataInfo, DecodeSize, Names, Sample, read_image
from mtframe.errors import BadLabelError, DataError
from mtframe.kinds import Finding

from ._meaning import MEANINGS, Meaning, judge_boxes
from ._turning import Orientation, Turning, learn_turning
from .boxes import Boxes

# Reasons for which boxes are left out.
NO_AREA, TWICE = "boxes without area inside their image", "boxes that stand twice on one image"


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a split's files say. Arrays rather than dicts: COCO's 860,000 boxes take 50 MB, and workers share them.

    Attributes:
        split: Its data set's name and its own, for messages.
        files: I paths, relative to the data set's root, with `/`.
        sizes: (I, 2) int32, height and width. 0 where they are not known before the image is read; boxes are
            then in parts of the image's width and height.
        first: (I + 1,) int64; image i's annotations are `first[i]:first[i + 1]`.
        boxes: (A, 4) float64, XYXY, clipped to their image. In float32, an IoU that is just a threshold could end on
            the other side of it, and AP would differ from COCO's.
        labels: (A,) int32.
        crowd: (A,) bool; neither learned nor punished.
        area: (A,) float64, as annotated; that of the box where nothing else is. In float32, one just beyond 32² would
            be that of a small object, which it is not to COCO.
        annotation_ids: (A,) int64.
        image_ids: (I,) int64.
        notes: What was left out.
        omitted: How many boxes and images, by reason.
        findings: What is odd about the numbers.
        turning: Whether pictures are turned upright before the boxes hold.
    """

    split: str
    files: Names
    sizes: np.ndarray
    first: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    annotation_ids: np.ndarray
    image_ids: np.ndarray
    notes: tuple[str, ...]
    omitted: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    turning: Turning = field(default_factory=Turning)
    _places: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.files)

    def place(self, index: int) -> int:
        """The index from 0 on. Raises IndexError past the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.split}: no sample {index}, there are {len(self)}")
        return index % len(self)

    def sample(self, index: int, size: tuple[int, int] | None = None) -> Sample:
        """One image's annotations, without its pixels.

        Target: `boxes` (N, 4) double XYXY in pixels of the original, `labels` (N,) long, `crowd` (N,) bool, `area`
        (N,) double, `annotation_id` (N,) long and `image_id` () long.

        Args:
            index: Of the image.
            size: Its (height, width), where `sizes` does not know it.
        """
        index = self.place(index)
        own = slice(int(self.first[index]), int(self.first[index + 1]))
        boxes, area = self.boxes[own].copy(), self.area[own].copy()
        if size is None:
            size = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        else:
            boxes *= (size[1], size[0]) * 2
            area = box_areas(boxes)
        target = {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(self.labels[own].astype(np.int64)),
            "crowd": torch.from_numpy(self.crowd[own].copy()),
            "area": torch.from_numpy(area),
            "annotation_id": torch.from_numpy(self.annotation_ids[own].copy()),
            "image_id": torch.tensor(int(self.image_ids[index])),
        }
        return Sample(torch.empty(0, dtype=torch.uint8), target, size, index, self.files[index])

    def ids(self) -> list[str]:
        """Path of each image relative to the data set's root."""
        return self.files.tolist()

    def place_of(self, id: str) -> int | None:
        """The index of the image with this path; None if there is none."""
        # Made when it is first asked for: few runs share images, and an object for each image takes much memory.
        if not self._places:
            # Whole, before another thread looks: one that finds half of them takes the others' labels for unknown.
            self._places.update(dict(zip(self.ids(), range(len(self)), strict=True)))
        return self._places.get(id)

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor] | None:
        """The target of the image with this path; None if there is none.

        Raises:
            DataError: Its annotations are for another size.
        """
        index = self.place_of(id)
        if index is None:
            return None
        known = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        if known not in ((0, 0), size):
            found, said = (f"{width}x{height}" for height, width in (size, known))
            raise DataError(f"{self.split}: {id} is {found} where it is read, but its annotations are for {said}")
        return self.sample(index, size if known == (0, 0) else None).target

    def read(self, index: int, root: Path, decode_size: DecodeSize | None) -> Sample:
        """One image with its annotations, where `sizes` knows its size; turned upright if they are for that.

        Raises:
            BadImageError: The file cannot be read.
            BadLabelError: It is not of that size.
        """
        sample = self.sample(index)
        path = root / sample.id
        sample.image, size = read_image(path, decode_size, upright=self.turning.of(sample.size))
        if size != sample.size:
            found, said = (f"{width}x{height}" for height, width in (size, sample.size))
            raise BadLabelError(path, f"is {found}, but its annotations are for {said}")
        return sample

    def noting(self, *notes: str) -> Annotations:
        """The same annotations with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def omitting(self, omitted: Mapping[str, int]) -> Annotations:
        """The same annotations, of which more was left out, by reason."""
        return replace(self, omitted=dict(Counter(self.omitted) + Counter(omitted)))

    def of_split(self, split: str, *, keep_empty: bool) -> Annotations:
        """What a data set has of them: evaluation keeps images without annotations, training only if it is asked to."""
        if keep_empty or split != "train":
            return self
        kept = np.diff(self.first) > 0
        return self._chosen(kept).omitting({"images without a box (keep_empty)": int((~kept).sum())})

    def without(self, images: Iterable[int]) -> Annotations:
        """The same without some images and their annotations, by position."""
        kept = np.ones(len(self), bool)
        kept[list(images)] = False
        return self if kept.all() else self._chosen(kept)

    def _chosen(self, kept: np.ndarray) -> Annotations:
        """The images where (I,) bool is true."""
        counts = np.diff(self.first)
        rows = np.repeat(kept, counts)
        columns = ("boxes", "labels", "crowd", "area", "annotation_ids")
        return replace(
            self,
            files=self.files.chosen(kept),
            sizes=self.sizes[kept],
            first=np.cumsum([0, *counts[kept]]),
            image_ids=self.image_ids[kept],
            _places={},
            **{name: getattr(self, name)[rows] for name in columns},
        )


class AnnotatedImages:
    """Images in files, with their boxes: what the data sets of all formats do once the annotations are read.

    Args:
        root: The folder that paths are relative to.
        split: The data set's own name of the split.
        annotations: What the files say of it.
        classes: Names of the labels.
        keep_empty: Whether images without boxes are kept in training; in evaluation they always are.
        orientation: Which way up the boxes are meant, where `sizes` are known.

    Attributes:
        info: Names of the classes.
        annotations: Those of the images that the data set has.
        notes: What was left out, for people to read.
        omitted: How much was left out of this split, by reason.
    """

    target: ClassVar[str] = "boxes"
    findings: ClassVar[tuple[str, ...]] = MEANINGS

    def __init__(
        self,
        root: Path,
        split: str,
        annotations: Annotations,
        classes: Sequence[str],
        *,
        keep_empty: bool,
        orientation: Orientation = "stored",
    ) -> None:
        self.root, self.split = root, split
        self.decode_size: DecodeSize | None = None
        self.info = DataInfo(self.target, tuple(classes))
        kept = annotations.of_split(split, keep_empty=keep_empty)
        turning, said = learn_turning(kept.split, root, kept.files, kept.sizes, orientation)
        self.annotations = replace(kept.noting(*said), turning=turning, _places={})
        self.notes = self.annotations.notes
        self.omitted: Mapping[str, int] = dict(self.annotations.omitted)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        """The image and its boxes, as `Annotations.sample` has them.

        Raises:
            IndexError: There is no such image.
            BadImageError: The file cannot be read, or is not of the size that its annotations are for.
        """
        return self.annotations.read(index, self.root, self.decode_size)

    def ids(self) -> list[str]:
        """Path of each image below `root`."""
        return self.annotations.ids()

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The target of the image with this path below `root`; of one that is not in this split nothing is known.

        Raises:
            DataError: Its annotations are for another size.
        """
        found = self.annotations.target_of(id, size)
        return Boxes(self.info).unknown() if found is None else found

    def annotated(self, index: int) -> Sample:
        """The sample without reading its image."""
        return self.annotations.sample(index)

    def inspect(self) -> list[Finding]:
        """Boxes whose numbers look like something else."""
        return list(self.annotations.findings)


def collect(
    split: str,
    where: str,
    files: Sequence[str],
    owner: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    crowd: np.ndarray,
    *,
    sizes: np.ndarray | None = None,
    area: np.ndarray | None = None,
    annotation_ids: np.ndarray | None = None,
    image_ids: np.ndarray | None = None,
    meant: Meaning = "corners",
) -> Annotations:
    """Clips boxes, leaves out those without area and those that stand twice, and sorts them by image.

    Args:
        split: Data set and split, for messages.
        where: What notes begin with.
        files: I paths relative to the root.
        owner: (A,) index of each annotation's image.
        boxes: (A, 4) XYXY, finite.
        labels: (A,).
        crowd: (A,).
        sizes: (I, 2) height and width in pixels; None where boxes are in parts of them.
        area: (A,) where it is not that of the box.
        annotation_ids: (A,); None for 1, 2, ...
        image_ids: (I,); None for 0, 1, ...
        meant: What the files' four numbers are.
    """
    limit = np.ones((len(owner), 4)) if sizes is None else np.tile(sizes[owner][:, ::-1], 2)
    findings = judge_boxes(boxes, limit[:, :2], meant, pixels=sizes is not None)
    boxes = np.minimum(boxes.clip(0), limit)
    area = box_areas(boxes) if area is None else area
    keep, notes, omitted = _usable(where, boxes, owner, labels, crowd)
    # Stable: annotations of an image stay in the order of the file.
    order = keep[np.argsort(owner[keep], kind="stable")]
    ids = np.arange(1, len(owner) + 1) if annotation_ids is None else annotation_ids
    return Annotations(
        split=split,
        files=Names(files),
        sizes=np.zeros((len(files), 2), np.int32) if sizes is None else sizes.astype(np.int32),
        first=np.searchsorted(owner[order], np.arange(len(files) + 1)),
        boxes=boxes[order],
        labels=labels[order].astype(np.int32),
        crowd=crowd[order],
        area=area[order].astype(np.float64),
        annotation_ids=ids[order],
        image_ids=np.arange(len(files)) if image_ids is None else image_ids,
        notes=notes,
        omitted=omitted,
        findings=tuple(findings),
    )


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """(N,) of (N, 4) XYXY."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def _usable(
    where: str, boxes: np.ndarray, owner: np.ndarray, labels: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...], dict[str, int]]:
    """Indices of annotations to keep, what to say of the others, and how many they are by reason."""
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows = np.column_stack([owner, labels, crowd, boxes])
    first = np.zeros(len(rows), dtype=bool)
    first[np.unique(rows, axis=0, return_index=True)[1]] = True
    notes = []
    if not solid.all():
        notes.append(f"{where}: {(~solid).sum()} boxes have no area inside their image; left out")
    if not first[solid].all():
        # The official train2017 has a few of these.
        notes.append(f"{where}: {(~first[solid]).sum()} boxes stand twice on one image; kept once")
    numbers = {NO_AREA: int((~solid).sum()), TWICE: int((~first[solid]).sum())}
    return np.flatnonzero(solid & first), tuple(notes), {reason: number for reason, number in numbers.items() if number}
