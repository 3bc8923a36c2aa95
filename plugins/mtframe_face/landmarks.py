"""Where eyes, nose and mouth are: from a file, or from a detector that another package offers."""

# Shapes: N images, C channels, H height, W width.

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mtframe.data import Header, Upright, read_header
from mtframe.errors import BadImageError, DataError, PluginError, RecipeError
from mtframe.folders import is_image
from mtframe.omissions import BAD_LABELS, Mistakes
from mtframe.paths import regular
from mtframe.registry import did_you_mean, resolve

from .identities import Texts

# Left and right are the picture's.
POINTS = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth")
GROUP = "mtframe_face.landmarks"
# What a model learns from besides its training data where faces are aligned by points, in words.
OUTSIDE = "landmarks of the faces"

# Which way up points are meant of pictures that are stored turned; see `Landmarks`.
Orientation = Literal["fit", "stored", "upright"]

# Pictures of a split whose headers are looked at when it is made.
_LOOKED_AT = 100

_LARGEST = float(np.finfo(np.float32).max)

_FILE = re.compile(r".+\.py:[A-Za-z_]\w*")

Detector = Callable[[Tensor], Any]


def read_landmarks(
    path: Path, ids: Sequence[str], mistakes: Mistakes | None = None, *, strays: bool = True
) -> np.ndarray:
    """Reads a landmarks file: lines `path,x1,y1,...,x5,y5`, or the same with blanks or tabs.

    Points are those of `POINTS`, in pixels of the image; paths are relative to the data set's root. A first line
    with no number in it is a head. Lines of other images are passed over.

    Args:
        path: The file.
        ids: Paths of the images.
        mistakes: Gets the lines of these images that are wrong; None to raise of the first line that is.
        strays: Whether it gets wrong lines that begin with no image, too.

    Returns:
        (N, 5, 2) float32, x and y; NaN for an image that the file does not have, or has in a line that is wrong.

    Raises:
        RecipeError: There is no such file.
        DataError: A line is malformed, with its number, unless that goes into `mistakes`; or the file has none of the
            images.
    """
    if not path.is_file():
        raise RecipeError(f"landmarks: no file '{path}'. It holds lines of path,x1,y1,...,x5,y5 ({', '.join(POINTS)})")
    place = {name: index for index, name in enumerate(ids)}
    found = np.full((len(ids), 5, 2), np.nan, np.float32)
    try:
        with regular(path).open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                words = line.rsplit("," if "," in line else None, 10)
                if not line.strip() or (number == 1 and not any(map(_is_number, words[1:]))):
                    continue
                if len(words) != 11 or not all(map(_is_number, words[1:])):
                    wrong = f"{path}:{number}: expected path,x1,y1,...,x5,y5, found {line.strip()[:80]!r}"
                    if mistakes is None:
                        raise DataError(wrong)
                    name = re.split(r"[,\s]", line.strip(), maxsplit=1)[0].removeprefix("./")
                    # The line of an image of another split is told there.
                    if name in place or (strays and not is_image(name)):
                        mistakes.add(number, wrong)
                    continue
                if (index := place.get(words[0].strip().removeprefix("./"))) is not None:
                    found[index] = np.array(words[1:], np.float32).reshape(5, 2)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    if len(ids) and np.isnan(found).all():
        if mistakes:
            raise DataError(mistakes.lines()[0])
        raise DataError(f"{path}: has none of the {len(ids)} images; expected paths such as {ids[0]!r}")
    return found


def are_upright(points: np.ndarray, header: Header) -> bool:
    """Whether five points are for a picture as it is seen, and not as it is stored.

    They are for the way up in which all of them are inside. Where they are in both, people are mostly upright: the
    mouth is below the eyes in what is seen, and beside or above them in what is stored turned.

    Args:
        points: (5, 2), x and y in pixels.
        header: Of the picture.
    """
    inside = [bool(((points >= 0) & (points <= size[::-1])).all()) for size in (header.size, header.upright)]
    if inside[0] != inside[1]:
        return inside[1]
    across, down = points[3:].mean(axis=0) - points[:2].mean(axis=0)
    return bool(down > abs(across))


class Landmarks:
    """The five points of a split's images, by position and by path.

    Args:
        path: A landmarks file, see `read_landmarks`.
        ids: Paths of the images.
        orientation: Which way up the points are meant of pictures that are stored turned (EXIF): as they fit the
            picture and an upright face (`fit`), as they are `stored`, or `upright`, as they are seen.
        bad_labels: Part of the lines that may be left out, since they are wrong.
        strays: Whether lines that begin with no image are told; of several splits that read a file, one tells.

    Attributes:
        omitted: How much was left out, by reason.

    Raises:
        RecipeError: There is no such file.
        DataError: More lines are wrong, or the file has none of the images.
    """

    def __init__(
        self,
        path: Path,
        ids: Sequence[str],
        orientation: Orientation = "fit",
        bad_labels: float = BAD_LABELS,
        *,
        strays: bool = True,
    ) -> None:
        mistakes = Mistakes()
        self._points = read_landmarks(path, ids, mistakes, strays=strays)
        whole = int((~np.isnan(self._points).any(axis=(1, 2))).sum()) + len(mistakes)
        self._said = mistakes.excused(whole, bad_labels, str(path), "lines", "they are wrong")
        self.omitted = {"lines of landmarks that are wrong": len(mistakes)} if mistakes else {}
        self._ids = Texts(ids)
        self._orientation = orientation
        self._places: dict[str, int] | None = None

    def upright(self, index: int) -> Upright:
        """Whether an image is turned upright before its points hold; one without points always is."""
        points = self._points[index]
        if np.isnan(points).any():
            return True
        return self._orientation == "upright" if self._orientation != "fit" else partial(are_upright, points)

    def notes(self, root: Path) -> tuple[str, ...]:
        """What is left out, and what is to be said of pictures that are stored turned, from headers of some of them."""
        return (*self._said, *self._turned(root))

    def _turned(self, root: Path) -> tuple[str, ...]:
        if self._orientation != "fit" or not len(self._points):
            return ()
        looked_at = sorted({int(place) for place in np.linspace(0, len(self._points) - 1, _LOOKED_AT)})
        seen = stored = 0
        for place in looked_at:
            with suppress(BadImageError, OSError):
                header = read_header(root / self._ids[place])
                if header.orientation != 1 and not np.isnan(self._points[place]).any():
                    upright = are_upright(self._points[place], header)
                    seen, stored = seen + upright, stored + (not upright)
        if not seen + stored:
            return ()
        return (
            f"of {len(looked_at)} pictures looked at, {seen + stored} are stored turned (EXIF): landmarks of {seen} "
            f"are for what is seen, of {stored} for what is stored. The option 'orientation' says otherwise",
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_places": None}

    def target(self, index: int) -> dict[str, Tensor]:
        """`landmarks` (5, 2) of one image for a sample's target; nothing where the file does not have it."""
        return {} if np.isnan(self._points[index]).any() else {"landmarks": self._of(index)}

    def target_of(self, id: str) -> dict[str, Tensor]:
        """`landmarks` (5, 2) of the image with this path; NaN where the split or the file does not have it."""
        if self._places is None:
            # Made when it is first asked for: few runs share images, and an object for each image takes much memory.
            self._places = {self._ids[index]: index for index in range(len(self._ids))}
        index = self._places.get(id)
        return {"landmarks": torch.full((5, 2), math.nan) if index is None else self._of(index)}

    def _of(self, index: int) -> Tensor:
        # A copy: who changes a sample's label in place must not change the data set.
        return torch.from_numpy(self._points[index].copy())


def find_detector(name: str) -> Detector:
    """A detector of landmarks, made anew.

    Args:
        name: One that an installed package offers in the entry-point group `mtframe_face.landmarks`, or
            `./file.py:Class`, relative to the current folder, not to a recipe's. What it names is called without
            arguments and gives a function of an image, (3, H, W) uint8 RGB, that returns (5, 2) points, or None where
            no face is.

    Raises:
        PluginError: There is no such detector, or it cannot be imported or made.
    """
    try:
        # The class in a file is not kept by its name, which another current folder makes another file's.
        return resolve("detector", name).component() if _FILE.fullmatch(name) else _class_of(name)()
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"detector {name!r} cannot be used: {type(error).__name__}: {error}") from error


@lru_cache
def _class_of(name: str) -> Callable[[], Detector]:
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in offered:
        there = f"; there are {', '.join(sorted(offered))}" if offered else ""
        raise PluginError(
            f"no detector {name!r}{did_you_mean(name, offered) or there}. A package offers one in its entry-point "
            f"group {GROUP!r}; one of your own is ./file.py:Class"
        )
    return offered[name].load()


def detect(detector: Detector, image: Tensor, name: str) -> Tensor | None:
    """What a detector finds in one picture, (5, 2) float, or None.

    Raises:
        DataError: It gives something else.
    """
    points = detector(image)
    if points is None:
        return None
    points = torch.as_tensor(points).float()
    if points.shape != (5, 2) or not points.isfinite().all():
        raise DataError(f"{name}: the detector gave {tuple(points.shape)} numbers, expected five finite points (5, 2)")
    return points


def _is_number(word: str) -> bool:
    try:
        # As a float32, as which it is kept.
        return abs(float(word)) <= _LARGEST
    except ValueError:
        return False
