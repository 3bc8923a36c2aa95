"""Record files as InsightFace publishes its training data, and its verification files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mtframe.data import DataInfo, DecodeSize, Sample, decode_image
from mtframe.errors import BadImageError, DataError, RecipeError
from mtframe.omissions import BAD_LABELS, Mistakes, check_part

from ._centres import NOBODY
from ._pickled_pairs import PickledPairs
from .identities import at_least, check_split, epoch_order
from .pairs import FOLDS, VIEW_2, VIEW_2_PAIRS, Pairs
from .recordio import Records

# Labels have 32 bits: from here on not every whole number is one of them.
_EXACT = 2**24

# People's numbers for each image, at most.
_SPARSEST = 100


class InsightFace:
    """Aligned faces in InsightFace's files: `train.rec` with `train.idx`, and pairs in `lfw.bin`, `agedb_30.bin`, ...

    Records are read where they lie; nothing is unpacked, and little more than two numbers an image is kept in memory.
    The images are aligned to 112×112 already: use the transform `face-align` with `aligned: true`.

    - `train`: the images of `train.rec`. Record 0 may say which they are, and which records after them give each
      person's range of images; without it all records are images, and every label is read once.
    - `val`, `test`: a verification file each, its pairs cut into ten folds in the file's order. It is a pickle, which
      is read without being executed; whatever is more than images and truth values is refused.

    These files do not name people, so nothing can check that the training data is without those of the pairs.

    Args:
        split: `train`, `val` or `test`.
        root: The folder with the files.
        val: Verification file of the split `val`.
        test: Verification file of the split `test`.
        per_identity: Images of a person that stand in a row in training, which the triplet loss needs; 1 for no order.
        balanced: Whether every person comes equally often in training, whoever has more images; else every image does.
        bad_labels: Part of the records that may be left out, since they cannot be read.

    Attributes:
        pairs: Pairs of positions in this split; None in training.
        omitted: How many records were left out, by reason.
        protocol: `LFW View 2` in a split of the 6,000 pairs of `lfw.bin`.
        photographed: Names of everybody whom the files show; empty, as they name nobody.

    Raises:
        RecipeError: `split`, `root` or a file names nothing there.
        DataError: A file is damaged or cut off, or is of another kind.
    """

    target: ClassVar[str] = "identity"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    photographed: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        val: str = "lfw.bin",
        test: str = "agedb_30.bin",
        per_identity: int = 1,
        balanced: bool = False,
        bad_labels: float = BAD_LABELS,
    ) -> None:
        check_split("insightface", split, self.splits)
        check_part(bad_labels=bad_labels)
        at_least(1, per_identity=per_identity)
        self.root, self.split, self.per_identity, self.balanced = Path(root), split, per_identity, balanced
        if not self.root.is_dir():
            raise RecipeError(f"root: no folder '{root}'. It holds train.rec, train.idx and files such as lfw.bin")
        self.decode_size: DecodeSize | None = None
        self.pairs: Pairs | None = None
        self.protocol: str | None = None
        self.omitted: dict[str, int] = {}
        self._said: tuple[str, ...] = ()
        if split == "train":
            self._records = Records(self.root / "train.rec")
            mistakes = Mistakes()
            self._keys, self._labels = _people(self._records, mistakes)
            whole, file = len(self._keys) + len(mistakes), str(self._records.file.path)
            self._said = mistakes.excused(whole, bad_labels, file, "records", "they cannot be read")
            if mistakes:
                self.omitted = {"records that cannot be read": len(mistakes)}
            classes = int(self._labels.max()) + 1
            # Numbers may have gaps, as of people who were taken out; a stray one costs a row of weights a number.
            if classes > _SPARSEST * len(self._labels):
                raise DataError(
                    f"{self._records.file.path}: names person {classes - 1:,}, and has {len(self._labels):,} images. "
                    f"Expected people's numbers from 0 on, at most {_SPARSEST} for each image"
                )
            self.info = DataInfo(self.target, tuple(map(str, range(classes))))
            return
        # Whoever is in a verification file, it is nobody with a class.
        self.info = DataInfo(self.target, ())
        self._pickled = PickledPairs(self.root / (val if split == "val" else test))
        if self._pickled.file.path.name == "lfw.bin" and len(self._pickled.same) == VIEW_2_PAIRS:
            self.protocol = VIEW_2
        number = np.arange(len(self._pickled.same))
        fold = number * FOLDS // len(number)
        self.pairs = Pairs(2 * number, 2 * number + 1, self._pickled.same, fold)

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """`{}` for a folder with `train.rec` and `train.idx`; see `Recognises`."""
        return {} if all((Path(root) / name).is_file() for name in ("train.rec", "train.idx")) else None

    def __len__(self) -> int:
        return len(self._keys) if self.split == "train" else len(self._pickled)

    def __getitem__(self, index: int) -> Sample:
        """One face; `target["label"]` is the person's class, or -1 in evaluation."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split} has {len(self)} images, no number {index}")
        label = NOBODY
        if self.split == "train":
            key = int(self._keys[index])
            name = f"train.rec/{key}"
            try:
                labels, data = self._records.image(key)
                label = _person(self._records, key, labels[0], len(self.info.classes))
            except DataError as error:
                # It costs this image, as a damaged file does.
                raise BadImageError(self.root / name, str(error)) from None
        else:
            data = self._pickled.image(index)
            name = f"{self._pickled.file.path.name}/{index}"
        image, size = decode_image(data, str(self.root / name), self.decode_size)
        return Sample(image, {"label": torch.tensor(label)}, size, index, name)

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels, which are not read; its size is not known."""
        train = self.split == "train"
        label = torch.tensor(int(self._labels[index]) if train else NOBODY)
        name = f"train.rec/{int(self._keys[index])}" if train else f"{self._pickled.file.path.name}/{index}"
        return Sample(torch.empty(0, dtype=torch.uint8), {"label": label}, (0, 0), index, name)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """One epoch's order, `per_identity` images of a person in a row; see `balanced`."""
        return epoch_order(self._labels, self.per_identity, self.balanced, rng)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing about the files, in sentences."""
        unknown = f"{self.split}: the file does not say who is in it, so training people in it go unnoticed"
        view_2 = f"{self.split}: these are the {VIEW_2_PAIRS:,} pairs of {VIEW_2}"
        return self._said if self.split == "train" else (unknown, *([view_2] if self.protocol else []))


def _people(records: Records, mistakes: Mistakes) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the images, and each one's label; both (N,) int64. Records that cannot be read go into `mistakes`."""
    keys = records.keys
    people = None
    if keys[0] == 0 and len(labels := records.labels(0)) > 1:
        # The first key after the images, where the records of people begin, and the first after those.
        first, last = (_whole(records, 0, label, "a record's key", math.inf) for label in labels[:2])
        first = _first_person(records, first)
        ranges = [records.labels(int(key))[:2] for key in keys[(keys >= first) & (keys < last)]]
        keys = keys[(keys > 0) & (keys < first)]
        people = _ranges(ranges, keys[keys < _EXACT])
    if not len(keys):
        raise DataError(f"{records.file.path}: has no image in it")
    known = np.empty(0, np.int64) if people is None else people
    owners = np.concatenate((known, np.full(len(keys) - len(known), NOBODY)))
    right = np.ones(len(keys), bool)
    # The labels of these are known from elsewhere; but what the file ends before is not there.
    for place in np.flatnonzero(~records.begun(keys[: len(known)])).tolist():
        mistakes.add(int(keys[place]), f"record {keys[place]}: the file ends before it")
        right[place] = False
    for place in range(len(known), len(keys)):
        key = int(keys[place])
        try:
            owners[place] = _person(records, key, records.labels(key)[0])
        except DataError as error:
            mistakes.add(key, str(error))
            right[place] = False
    if not right.any():
        raise DataError(f"{records.file.path}: no record can be read: {mistakes.lines()[0]}")
    # Not copied where nothing is left out: these share their memory with the index.
    return (keys, owners) if right.all() else (keys[right], owners[right])


def _first_person(records: Records, first: int) -> int:
    """The key where the records of people begin, which record 0 tells to the precision of 32 bits."""
    if first < _EXACT:
        return first
    off = int(np.spacing(np.float32(first)))
    near = records.keys[(records.keys >= first - off) & (records.keys <= first + off)]
    # They have no image.
    return next((int(key) for key in near if not records.image(int(key))[1]), first)


def _ranges(ranges: list[tuple[float, ...]], keys: np.ndarray) -> np.ndarray | None:
    """The label of each image (N,) by the people's ranges of keys; None where these are not one after the other.

    Args:
        ranges: The first key of each person's images, and the first after them.
        keys: (N,) int64, below 2**24; ranges that begin above are passed over, as their limits are rounded.
    """
    if not ranges or not len(keys) or any(len(found) < 2 for found in ranges):
        return None
    starts, ends = np.array(ranges).T
    count = int((starts < _EXACT).sum())
    starts, ends = starts[:count], ends[:count]
    if not count or starts[0] > keys[0] or ends[-1] <= keys[-1] or (starts >= ends).any():
        return None
    if (starts[1:] != ends[:-1]).any():
        return None
    return np.searchsorted(ends, keys, side="right")


def _person(records: Records, key: int, label: float, classes: int | None = None) -> int:
    """A label as a class; raises DataError if it is none."""
    limit = f", below {classes}" if classes else ""
    return _whole(records, key, label, f"a person's number{limit}", classes or _EXACT)


def _whole(records: Records, key: int, label: float, what: str, below: float) -> int:
    """A label as a whole number; raises DataError if it is none."""
    if not math.isfinite(label) or label != int(label) or not 0 <= label < below:
        raise DataError(f"{records.file.path}: record {key}: expected {what}, found label {label:g}")
    return int(label)
