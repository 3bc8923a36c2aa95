"""A folder of pictures for each person: the simplest layout of identities there is."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mtframe.data import DataInfo, DecodeSize, Sample, read_image
from mtframe.errors import DataError, RecipeError
from mtframe.folders import folders_in, holds_classes, images_below, not_used, splits_among
from mtframe.omissions import BAD_LABELS, check_part

from ._centres import NOBODY
from .identities import Roles, Texts, at_least, check_split, class_by_path, draw_pairs, enrol, epoch_order
from .landmarks import Landmarks, Orientation
from .pairs import PAIRS, PEOPLE, Pairs
from .synthesis import LANDMARKS, synthesize_folders

# Streams of random numbers that must not run into one another.
_PAIRS, _UNKNOWN = range(2)

# People who can be cut into train and val: two to learn from, and two others to validate on.
_LEAST = 4

# People who are held out, if they are no more than a third of all.
_LEAST_ASIDE = 10


class IdentityFolders:
    """Pictures in a folder for each person; people who are evaluated are never trained on.

    Either `root` has the folders `train` and `val` (and `test`), each with `NAME/*.jpg`, ...; one name in two of them
    is an error. Or `NAME/*.jpg` lies right in `root`: then a part of the *people* is set aside for `val`, always the
    same ones for the same seed, whoever else is added. A split's folder may have another of its names, as `valid`.
    Names that begin with a dot, and what systems leave beside files, are left out.

    What is evaluated is drawn from a seed: pairs for verification, and for identification each person's first images
    (by name) as the gallery and all others as probes.

    Pictures are turned upright as their EXIF orientation says, unless landmarks are for what is stored.

    Args:
        split: `train`, `val` or `test`.
        root: The folder.
        validate: Part of the people for `val` where `root` has no folder `train`, above 0 and below 1; ten people at
            least, or a third of all where that is fewer.
        seed: Other seeds set other people aside, and draw other pairs and other unknown people.
        min_images: A person with fewer images is not trained on: one picture shows no variation.
        per_identity: Images of a person that stand in a row in training, which the triplet loss needs; 1 for no order.
        balanced: Whether every person comes equally often in training, whoever has more images; else every image does.
        pairs: Pairs of one person to verify, and as many of two; as many of both as there are of the rarer sort.
        gallery: Enrolled images of a person.
        unknown: Part of the evaluated people whom the gallery leaves out, to be rejected; 0 to below 1. Two stay in it.
        landmarks: File of five points for each image, below `root` (see `face-align`); null for none. Its default
            need not be there.
        bad_labels: Part of the lines of landmarks that may be left out, since they are wrong.
        orientation: Which way up landmarks are meant of pictures that are stored turned (EXIF): as they fit the picture
            and an upright face (`fit`), as they are `stored`, or `upright`, as they are seen.

    Attributes:
        people: Names of everybody in this split.
        pairs: Pairs of positions in this split; None in training, and where nobody has two images.
        roles: Who is enrolled; None in training.
        notes: What is worth knowing about the files, in sentences.
        omitted: How much was left out, by reason.

    Raises:
        RecipeError: `split` or `root` names nothing there, or an option is out of its range.
        DataError: There are fewer than two people, or some stand in two splits.
    """

    target: ClassVar[str] = "identity"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    synthesize = staticmethod(synthesize_folders)

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        validate: float = 0.1,
        seed: int = 0,
        min_images: int = 2,
        per_identity: int = 1,
        balanced: bool = False,
        pairs: int = 3000,
        gallery: int = 1,
        unknown: float = 0.3,
        landmarks: str | None = LANDMARKS,
        bad_labels: float = BAD_LABELS,
        orientation: Orientation = "fit",
    ) -> None:
        check_split("identity-folders", split, self.splits)
        at_least(1, min_images=min_images, per_identity=per_identity, pairs=pairs, gallery=gallery)
        at_least(0, seed=seed)
        check_part(bad_labels=bad_labels)
        if not 0 < validate < 1:
            raise RecipeError(f"validate: must be above 0 and below 1, got {validate:g}")
        if not 0 <= unknown < 1:
            raise RecipeError(f"unknown: must be 0 or more and below 1, got {unknown:g}")
        self.root, self.split, self.per_identity, self.balanced = Path(root), split, per_identity, balanced
        self.decode_size: DecodeSize | None = None
        self.pairs: Pairs | None = None
        self.roles: Roles | None = None

        self.omitted: Counter[str] = Counter()
        folders, self._unused = _people_by_split(self.root, split, validate, seed)
        found = self._images(*folders["train"], count=split == "train")
        kept = {name: files for name, files in found.items() if len(files) >= min_images}
        self.passed_over = len(found) - len(kept)
        self._nested = _nested(folders["train"][0], [name for name, files in found.items() if not files])
        _refuse_nested(folders["train"][0], self._nested, any(found.values()))
        self.info = DataInfo(self.target, tuple(kept))
        self._classes = {name: label for label, name in enumerate(kept)}
        self._trained = folders["train"][0]
        self.folder, names = folders[split]
        here = kept if split == "train" else self._images(self.folder, names, count=True)
        if split == "train":
            self.omitted["people with too few images (min_images)"] = self.passed_over
            self.omitted = +self.omitted
        self._index({name: files for name, files in here.items() if files}, min_images)
        if split != "train":
            self._evaluated(seed, pairs, gallery, unknown)
        self._landmarks = self._read_landmarks(landmarks, orientation, bad_labels)
        self._said: tuple[str, ...] = ()
        if self._landmarks is not None:
            self._said = self._landmarks.notes(self.root)
            self.omitted.update(self._landmarks.omitted)

    def __len__(self) -> int:
        return len(self._persons)

    def __getitem__(self, index: int) -> Sample:
        """One face; `target["label"]` is the person's class, or -1 for somebody who is not trained on.

        `target["landmarks"]`: (5, 2) float, pixels of the original, where the landmarks file has the image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split} has {len(self)} images, no number {index}")
        name = self._id(index)
        upright = True if self._landmarks is None else self._landmarks.upright(index)
        image, size = read_image(self.root / name, self.decode_size, upright=upright)
        label = int(self._persons[index]) if self.split == "train" else NOBODY
        target = {"label": torch.tensor(label)}
        if self._landmarks is not None:
            target |= self._landmarks.target(index)
        return Sample(image, target, size, index, name)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing about the files, in sentences."""
        deep = f"{len(self._nested)} folders hold pictures two folders deep ({', '.join(self._nested[:3])}); not read"
        return (
            *((deep,) if self._nested and self.split == "train" else ()),
            *not_used(self.root, self._unused),
            *self._said,
        )

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels, which are not read; its size is not known."""
        id = self._id(index)
        label = int(self._persons[index]) if self.split == "train" else NOBODY
        target = {"label": torch.tensor(label)}
        if self._landmarks is not None:
            target |= self._landmarks.target(index)
        return Sample(torch.empty(0, dtype=torch.uint8), target, (0, 0), index, id)

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """`{}` for folders of images of two or more people, in the root or in splits; see `Recognises`.

        Not for a folder with text files of LFW's protocol, which says which people are verified.
        """
        splits = _splits(Path(root))[0]
        folder = Path(root) / splits.get("train", "")
        if any((Path(root) / name).is_file() for name in (PEOPLE, *PAIRS.values())):
            return None
        return {} if holds_classes(folder, deep=False) else None

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """One epoch's order, `per_identity` images of a person in a row; see `balanced`."""
        return epoch_order(self._persons, self.per_identity, self.balanced, rng)

    def ids(self) -> list[str]:
        """Path of each image below `root`."""
        return [self._id(index) for index in range(len(self))]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The target of an image by its path below `root`; label -1 for somebody who is not trained on.

        With a landmarks file, `landmarks` (5, 2) float too; NaN where it is unknown.
        """
        label = {"label": torch.tensor(class_by_path(id, self.root, self._trained, self._classes))}
        return label if self._landmarks is None else label | self._landmarks.target_of(id)

    def _images(self, folder: Path, names: Sequence[str], *, count: bool) -> dict[str, list[str]]:
        """Names of the image files by person, sorted; `count` what else lies there."""
        found = {name: images_below(folder / name, deep=False) for name in names}
        for images in found.values() if count else ():
            self.omitted += images.omitted
        return {name: images.files for name, images in found.items()}

    def _index(self, images: dict[str, list[str]], min_images: int) -> None:
        self.people = tuple(images)
        self._files = Texts([file for files in images.values() for file in files])
        self._persons = np.repeat(np.arange(len(images)), [len(files) for files in images.values()])
        if len(images) < 2:
            least = f" with {min_images} or more images (min_images)" if self.split == "train" else ""
            raise DataError(
                f"{self.folder}: {len(images)} people{least} in split {self.split!r}; at least 2 are needed"
            )

    def _id(self, index: int) -> str:
        path = self.folder / self.people[self._persons[index]] / self._files[index]
        return path.relative_to(self.root).as_posix()

    def _evaluated(self, seed: int, pairs: int, gallery: int, unknown: float) -> None:
        drawn = draw_pairs(self._persons, pairs, np.random.default_rng([seed, _PAIRS]))
        self.pairs = drawn if drawn.same.any() else None
        strangers = np.random.default_rng([seed, _UNKNOWN]).permutation(len(self.people))
        # Two stay enrolled: who is the only one in a gallery is always found.
        left_out = min(round(unknown * len(self.people)), max(0, len(self.people) - 2))
        self.roles = enrol(self._persons, gallery, strangers[:left_out])

    def _read_landmarks(self, name: str | None, orientation: Orientation, bad_labels: float) -> Landmarks | None:
        if name is None or (name == LANDMARKS and not (self.root / name).is_file()):
            return None
        return Landmarks(self.root / name, self.ids(), orientation, bad_labels, strays=self.split == "train")


def _splits(root: Path) -> tuple[dict[str, str], list[str]]:
    """The folders of splits by split, and the others; none where the people lie right in the root."""
    splits, others = splits_among(folders_in(root))
    return (splits, others) if "train" in splits and folders_in(root / splits["train"]) else ({}, [])


def _people_by_split(
    root: Path, split: str, validate: float, seed: int
) -> tuple[dict[str, tuple[Path, list[str]]], list[str]]:
    """The folder of each split with the names of its people, of `train` and of `split`; and folders of no split.

    Raises:
        RecipeError: There is no such folder.
        DataError: Somebody stands in both.
    """
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'. It holds a folder of pictures for each person")
    splits, others = _splits(root)
    if splits:
        if split not in splits:
            raise RecipeError(f"root: no folder '{root / split}', though there is one for train")
        people = {name: (root / splits[name], folders_in(root / splits[name])) for name in ("train", split)}
        if split != "train" and (shared := sorted({*people["train"][1]} & {*people[split][1]})):
            raise DataError(
                f"{root}: {len(shared)} people stand both in train and in {split} ({', '.join(shared[:5])}). A score "
                "on people whom the model learned says nothing about strangers"
            )
        return people, others
    names = folders_in(root)
    if not names:
        raise DataError(f"{root}: expected NAME/*.jpg, ..., or such folders in train and val; found no folder")
    if split == "test":
        raise RecipeError(f"root: no folder '{root / 'test'}'; people right in the root are cut into train and val")
    if len(names) < _LEAST:
        # Groups of people, perhaps: few folders, and the people in them.
        empty = [name for name in names if not images_below(root / name, deep=False).files]
        _refuse_nested(root, _nested(root, empty), len(empty) < len(names))
        raise DataError(
            f"{root}: {len(names)} people in all ({', '.join(names)}). To learn takes two, and to validate two others: "
            "add people, or put those who validate into a folder val beside the folder train"
        )
    # By a digest of the name: adding people moves hardly anybody from one side to the other.
    ranked = sorted(names, key=lambda name: zlib.crc32(f"{seed}/{name}".encode("utf-8", "surrogateescape")))
    # Of two people, or of three, no score says much: ten at least, where that leaves two thirds to learn from.
    aside = set(ranked[: max(2, round(validate * len(names)), min(_LEAST_ASIDE, len(names) // 3))])
    parts = {"train": [name for name in names if name not in aside], "val": sorted(aside)}
    return {name: (root, people) for name, people in parts.items()}, []


def _nested(folder: Path, empty: list[str]) -> list[str]:
    """Folders of pictures, `NAME/INNER`, in those of people who have no picture of their own."""
    return [
        f"{name}/{inner}"
        for name in empty
        for inner in folders_in(folder / name)
        if images_below(folder / name / inner, deep=False).files
    ]


def _refuse_nested(folder: Path, nested: list[str], others: bool) -> None:
    """Raises DataError if all pictures lie a folder deeper than those of people do."""
    if nested and not others:
        raise DataError(
            f"{folder}: no picture lies in {folder}/NAME/, but {len(nested)} folders of pictures lie deeper, as "
            f"{folder}/{nested[0]}. A person has one folder of pictures. Name the folder above them as root, or, if "
            f"people are sorted into groups, move or link their folders into {folder}; if a person's pictures are, "
            "move the pictures up"
        )
