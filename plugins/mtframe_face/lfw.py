"""Labeled Faces in the Wild, and anything laid out like it."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mtframe.data import DataInfo, DecodeSize, Sample, read_image
from mtframe.download import download
from mtframe.errors import DataError, MtframeError, RecipeError, pasted
from mtframe.folders import folders_in, images_below
from mtframe.omissions import BAD_LABELS, Mistakes, check_part

from ._download import LFW_FILES
from .identities import Roles, Texts, at_least, check_split, class_by_path, enrol, epoch_order
from .landmarks import Landmarks, Orientation
from .pairs import PAIRS, PEOPLE, VIEW_2, NamedPair, Pairs, read_pairs, read_people
from .synthesis import synthesize_people

FOLDERS = ("lfw-deepfunneled", "lfw_funneled", "lfw-funneled", "lfw")


class LFW:
    """Faces in the layout of Labeled Faces in the Wild: a folder for each person, text files beside them.

    The pictures lie in `NAME/NAME_0001.jpg`, ... under `root` or its folder `lfw-deepfunneled`,
    `lfw_funneled`, `lfw-funneled` or `lfw`, with the suffix of any image in any case, and
    as many zeros as there are: what a pairs file calls number 1 of NAME may be `name_1.PNG`. Pictures of other names
    are left out and counted. Training and evaluation never share a person:

    - `train`: the images on disk of the people of `peopleDevTrain.txt` (View 1). Without that file, everybody
      whom no pairs file names.
    - `val`: the distinct images of `pairsDevTest.txt` (View 1).
    - `test`: those of `pairs.txt` (View 2, ten folds). View 2 names View 1's training people too, so a model
      that learned from them is refused here: train with `people=null`, or on other people.

    Huang, Ramesh, Berg, Learned-Miller: Labeled Faces in the Wild. UMass Amherst, TR 07-49, 2007.

    Args:
        split: `train`, `val` or `test`.
        root: The folder with the images and the text files.
        people: File that names the training people; null for everybody whom no pairs file names.
        min_images: A person with fewer images on disk is not trained on: one picture shows no variation.
        per_identity: Images of a person that stand in a row in training, which the triplet loss needs; 1 for no order.
        balanced: Whether every person comes equally often in training, whoever has more images; else every image does.
        bad_labels: Part of the lines of the people file, of the pairs and of the landmarks that may be left out, since
            they are wrong or their images are not there.
        landmarks: File of five points for each image, below `root` (see `face-align`); null for none.
        orientation: Which way up landmarks are meant of pictures that are stored turned (EXIF): as they fit the picture
            and an upright face (`fit`), as they are `stored`, or `upright`, as they are seen.

    Attributes:
        pairs: Pairs of positions in this split; None in training.
        roles: Who is enrolled for identification: each person's first image; people with one image are unknown. None
            in training.
        protocol: `LFW View 2` in the split `test`, if none of its pairs is left out.
        people: Names of everybody who stands in this split.
        absent: Number of images that the people file promises and the disk does not have.
        notes: What is worth knowing about the files, in sentences.

    Raises:
        RecipeError: `split`, `root` or `people` names nothing there.
        DataError: A file is malformed, more lines are wrong or images of pairs absent than `bad_labels` allows, or a
            person is in both training and evaluation.
    """

    target: ClassVar[str] = "identity"
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    synthesize = staticmethod(synthesize_people)

    def __init__(
        self,
        split: str,
        *,
        root: Path,
        people: str | None = PEOPLE,
        min_images: int = 2,
        per_identity: int = 1,
        balanced: bool = False,
        bad_labels: float = BAD_LABELS,
        landmarks: str | None = None,
        orientation: Orientation = "fit",
    ) -> None:
        check_split("lfw", split, self.splits)
        at_least(1, min_images=min_images, per_identity=per_identity)
        check_part(bad_labels=bad_labels)
        self.root = Path(root)
        self.split, self.per_identity, self.balanced = split, per_identity, balanced
        self.decode_size: DecodeSize | None = None
        self.folder = _image_folder(self.root)
        self.pairs: Pairs | None = None
        self.roles: Roles | None = None
        self.absent = 0
        self._left_out: Counter[str] = Counter()
        self._said: tuple[str, ...] = ()

        listed = self._listed_people(people, bad_labels)
        files = {name: list(_numbered(self.folder / name).values()) for name in listed}
        if split == "train":
            there = sum(len(images_below(self.folder / name, deep=False).files) for name in listed)
            self._left_out["images that are not called NAME_0001.jpg"] = there - sum(map(len, files.values()))
        self.absent = sum(max(0, count - len(files[name])) for name, count in listed.items())
        kept = {name: found for name, found in files.items() if len(found) >= min_images}
        self.passed_over = sum(0 < len(found) < min_images for found in files.values())
        self.info = DataInfo(self.target, tuple(kept))
        self._classes = {name: label for label, name in enumerate(kept)}
        if split == "train":
            self._refuse_shared(set(listed), "val", people)
            self._index([(name, file) for name in kept for file in kept[name]])
            if len(kept) < 2:
                raise DataError(
                    f"{self.folder}: {len(kept)} people to train on with {min_images} or more images "
                    "(min_images); at least 2 are needed"
                )
        else:
            self._refuse_shared(set(listed), split, people)
            self._index_pairs(bad_labels)
        self.protocol = VIEW_2 if split == "test" and not +self._left_out else None
        self._landmarks: Landmarks | None = None
        if landmarks:
            self._landmarks = Landmarks(
                self.root / landmarks, self.ids(), orientation, bad_labels, strays=split == "train"
            )
            self._said += self._landmarks.notes(self.root)
            self._left_out += self._landmarks.omitted

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        """One face; `target["label"]` is the person's class, or -1 for somebody who is not trained on.

        `target["landmarks"]`: (5, 2) float, pixels of the original, where the landmarks file has the image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.split} has {len(self)} images, no number {index}")
        path = self._path(index)
        upright = True if self._landmarks is None else self._landmarks.upright(index)
        image, size = read_image(path, self.decode_size, upright=upright)
        target = {"label": torch.tensor(int(self._labels[index]))}
        if self._landmarks is not None:
            target |= self._landmarks.target(index)
        return Sample(image, target, size, index, path.relative_to(self.root).as_posix())

    def annotated(self, index: int) -> Sample:
        """The sample without its pixels, which are not read; its size is not known."""
        id = self._path(index).relative_to(self.root).as_posix()
        target = {"label": torch.tensor(int(self._labels[index]))}
        if self._landmarks is not None:
            target |= self._landmarks.target(index)
        return Sample(torch.empty(0, dtype=torch.uint8), target, (0, 0), index, id)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """One epoch's order, `per_identity` images of a person in a row; see `balanced`."""
        return epoch_order(self._labels, self.per_identity, self.balanced, rng)

    def ids(self) -> list[str]:
        """Path of each image below `root`."""
        return [self._path(index).relative_to(self.root).as_posix() for index in range(len(self))]

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The target of an image by its path below `root`; label -1 for somebody who is not trained on.

        With a landmarks file, `landmarks` (5, 2) float too; NaN where it is unknown.
        """
        label = {"label": torch.tensor(class_by_path(id, self.root, self.folder, self._classes))}
        return label if self._landmarks is None else label | self._landmarks.target_of(id)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing about the files, in sentences."""
        return self._said

    @property
    def people(self) -> tuple[str, ...]:
        """Names of everybody who stands in this split."""
        return tuple(self._names)

    @property
    def photographed(self) -> frozenset[str]:
        """Names of everybody who has a folder of images, in whatever split."""
        return frozenset(folders_in(self.folder))

    @property
    def omitted(self) -> dict[str, int]:
        """How much was left out, by reason."""
        absent = {"images that the people file promises and the disk does not have": self.absent}
        few = {"people with too few images (min_images)": self.passed_over}
        of_training = {reason: count for reason, count in (absent | few).items() if count and self.split == "train"}
        return of_training | dict(+self._left_out)

    @staticmethod
    def recognises(root: Path) -> dict[str, Any] | None:
        """`{}` for people as LFW has them, with a file of pairs; see `Recognises`."""
        if not any((Path(root) / name).is_file() for name in PAIRS.values()):
            return None
        try:
            _image_folder(Path(root))
        except MtframeError:
            return None
        return {}

    @staticmethod
    def download(root: Path) -> None:
        """Fetches the funneled images and the text files of both views (about 240 MB)."""
        download(Path(root), LFW_FILES)

    def _path(self, index: int) -> Path:
        return self.folder / self._names[self._persons[index]] / self._files[index]

    def _listed_people(self, people: str | None, bad_labels: float) -> dict[str, int]:
        """Promised number of images by name of training person."""
        if people is not None and os.path.isfile(self.root / people):
            mistakes = Mistakes()
            found = read_people(self.root / people, mistakes)
            whole = len(found) + len(mistakes)
            said = mistakes.excused(whole, bad_labels, str(self.root / people), "lines", "they are wrong")
            # Every split reads the file, and one tells.
            if mistakes and self.split == "train":
                self._said += said
                self._left_out["lines of the people file that are wrong"] = len(mistakes)
            return found
        if people not in (None, PEOPLE):
            raise RecipeError(f"people: no file '{self.root / str(people)}'. Name one that is there, or null")
        paired = {name for split in PAIRS if self._has_pairs(split) for name in _names(self._evaluated(split))}
        return {name: 0 for name in folders_in(self.folder) if name not in paired}

    def _has_pairs(self, split: str) -> bool:
        return (self.root / PAIRS[split]).is_file()

    def _evaluated(self, split: str, mistakes: Mistakes | None = None) -> list[NamedPair]:
        """The pairs of a split; lines that are wrong go into `mistakes`."""
        path = self.root / PAIRS[split]
        if not path.is_file():
            there = [name for name in PAIRS if self._has_pairs(name)]
            hint = f"split {' and '.join(there)} can be read" if there else "no pairs file is there"
            raise RecipeError(f"no file '{path}', which split {split!r} reads; {hint}")
        return read_pairs(path, Mistakes() if mistakes is None else mistakes)

    def _refuse_shared(self, listed: set[str], split: str, people: str | None) -> None:
        if not self._has_pairs(split):
            return
        if shared := sorted(listed & _names(self._evaluated(split))):
            raise DataError(
                f"{self.root}: {len(shared)} people stand both in {people} (training) and in {PAIRS[split]} "
                f"({split}): {_some(shared)}. A verification score needs unseen people. Train with "
                "people=null (everybody whom no pairs file names), or train on other data and evaluate with "
                "people=null"
            )

    def _index(self, images: list[tuple[str, str]]) -> None:
        """Takes these images, each a person and the name of a file."""
        # Arrays, not lists of paths: a loader's worker processes would copy every Python object they touch.
        self._names = list(dict.fromkeys(name for name, _ in images))
        position = {name: index for index, name in enumerate(self._names)}
        self._persons = np.array([position[name] for name, _ in images], np.int64)
        self._files = Texts([file for _, file in images])
        self._labels = np.array([self._classes.get(name, -1) for name, _ in images], np.int64)

    def _index_pairs(self, bad_labels: float) -> None:
        """Takes the pairs of the split whose images are there, and these images."""
        mistakes = Mistakes()
        named = self._evaluated(self.split, mistakes)
        numbered = {name: _numbered(self.folder / name) for name in _names(named)}
        pairs: list[NamedPair] = []
        for place, pair in enumerate(named):
            absent = [(name, number) for name, number in (pair.first, pair.second) if number not in numbered[name]]
            for name, number in absent:
                mistakes.add(
                    ("pair", place), f"{self.folder / name}: no image number {number}, as {name}_{number:04d}.jpg"
                )
            if not absent:
                pairs.append(pair)
        file = self.root / PAIRS[self.split]
        whole = len(pairs) + len(mistakes)
        why = "their lines are wrong or their images are not there"
        self._said += mistakes.excused(whole, bad_labels, str(file), "pairs", why)
        if mistakes:
            self._left_out["pairs whose lines are wrong or whose images are not there"] = len(mistakes)
        images = list(dict.fromkeys(image for pair in pairs for image in (pair.first, pair.second)))
        self._index([(name, numbered[name][number]) for name, number in images])
        self.roles = enrol(self._persons, 1)
        position = {image: index for index, image in enumerate(images)}
        self.pairs = Pairs(
            np.array([position[pair.first] for pair in pairs], np.int64),
            np.array([position[pair.second] for pair in pairs], np.int64),
            np.array([pair.same for pair in pairs], bool),
            np.array([pair.fold for pair in pairs], np.int64),
        )


def _image_folder(root: Path) -> Path:
    if not root.is_dir():
        raise RecipeError(f"root: no folder '{root}'. Fetch it with: mtframe data download lfw {pasted(root)}")
    for name in FOLDERS:
        if (root / name).is_dir():
            return root / name
    if any(_numbered(root / name) for name in folders_in(root)):
        return root
    raise DataError(
        f"{root}: expected NAME/NAME_0001.jpg, ... in it or in its folder {', '.join(FOLDERS)}; found no "
        f"person. Fetch LFW with: mtframe data download lfw {pasted(root)}"
    )


def _numbered(folder: Path) -> dict[int, str]:
    """The images in a person's folder that have a number behind the person's name, by number; of two, the first."""
    pattern = re.compile(re.escape(folder.name) + r"_0*([1-9]\d{0,8})", re.IGNORECASE)
    files = images_below(folder, deep=False).files
    numbers = ((pattern.fullmatch(os.path.splitext(file)[0]), file) for file in files)
    found = sorted((int(match[1]), file) for match, file in numbers if match)
    by_number: dict[int, str] = {}
    for number, file in found:
        by_number.setdefault(number, file)
    return by_number


def _names(pairs: list[NamedPair]) -> set[str]:
    return {image[0] for pair in pairs for image in (pair.first, pair.second)}


def _some(names: list[str], most: int = 5) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
