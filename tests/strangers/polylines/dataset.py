"""The data set `lanes`: pictures of roads with the lines on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mtframe.data import DataInfo, DecodeSize, Sample, read_image
from mtframe.errors import DataError, RecipeError
from mtframe.synthesis import check_least, open_root

from .lines import stacked

CLASSES = ("lane",)

# Folders by the number of lines, so that the pictures are a classification's too.
FOLDERS = ("one", "two")


class Lanes:
    """Pictures with lines, which `lanes.json` has by their path below the root.

    Args:
        split: `train` or `val`: the folder that a picture is in.
        root: The folder of `lanes.json`.

    Raises:
        RecipeError: There is no such file.
    """

    target: ClassVar[str] = "polylines"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")

    def __init__(self, split: str, *, root: Path) -> None:
        self.root = root
        self.info = DataInfo("polylines", CLASSES)
        self.decode_size: DecodeSize | None = None
        if not (root / "lanes.json").is_file():
            raise RecipeError(f"root: no file '{root / 'lanes.json'}'")
        lanes = json.loads((root / "lanes.json").read_text(encoding="utf-8"))
        self._lanes = {path: its for path, its in lanes.items() if path.startswith(f"{split}/")}
        self._paths = sorted(self._lanes)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        """One picture with its lines."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} pictures, no number {index}")
        path = self._paths[index]
        image, size = read_image(self.root / path, self.decode_size)
        return Sample(image, self.target_of(path, size), size, index, path)

    def ids(self) -> list[str]:
        """The path of each picture."""
        return list(self._paths)

    def target_of(self, id: str, size: tuple[int, int]) -> dict[str, Tensor]:
        """The lines on the picture of this path; one of NaN for a picture that is not here."""
        its = self._lanes.get(id)
        if its is None:
            return {"points": torch.full((1, 1, 2), torch.nan), "labels": torch.zeros(1, dtype=torch.long)}
        if tuple(its["size"]) != size:
            raise DataError(f"lanes: {id} is {size} pixels (height, width), its lines are for {tuple(its['size'])}")
        labels = [CLASSES.index(line["class"]) for line in its["lines"]]
        return {
            "points": stacked([torch.tensor(line["points"]) for line in its["lines"]]),
            "labels": torch.tensor(labels, dtype=torch.long),
        }

    @staticmethod
    def synthesize(root: Path, *, seed: int = 0, train: int = 24, val: int = 8, size: int = 64) -> dict[str, int]:
        """Draws dark roads with one light line or two.

        Args:
            root: A new or empty folder.
            seed: Other seeds give other roads.
            train: Pictures to learn from.
            val: Pictures to be scored on.
            size: Pixels of a picture's height; it is half as wide again.

        Raises:
            RecipeError: The folder holds something else, or an option is too small.
        """
        check_least(train=(train, 2), val=(val, 2), size=(size, 32))
        options = {"seed": seed, "train": train, "val": val, "size": size}
        root = open_root(root, "lanes", ["lanes.json", "train", "val"], options)
        lanes = {}
        for number in range(train + val):
            rng = np.random.default_rng([seed, number])
            split, folder = "train" if number < train else "val", FOLDERS[number % 2]
            path = f"{split}/{folder}/{number:04}.png"
            picture, lines = _road(rng, size, 1 + number % 2)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            picture.save(root / path)
            lanes[path] = {"size": [picture.height, picture.width], "lines": lines}
        (root / "lanes.json").write_text(json.dumps(lanes), encoding="utf-8")
        return {"train": train, "val": val}


def _road(rng: np.random.Generator, size: int, count: int) -> tuple[Image.Image, list[dict[str, object]]]:
    width = size * 3 // 2
    picture = Image.new("RGB", (width, size), tuple(int(grey) for grey in rng.integers(20, 60, 3)))
    draw, lines = ImageDraw.Draw(picture), []
    for number in range(count):
        points = _line(rng, size, width, (number + rng.uniform(0.3, 0.7)) / count)
        draw.line([(x - 0.5, y - 0.5) for x, y in points.tolist()], fill=(240, 240, 235), width=3)
        lines.append({"class": CLASSES[0], "points": [[round(x, 2), round(y, 2)] for x, y in points.tolist()]})
    return picture, lines


def _line(rng: np.random.Generator, size: int, width: int, place: float) -> np.ndarray:
    """Three to six points from the bottom to the top."""
    y = np.linspace(size - 2, 2, int(rng.integers(3, 7)))
    bend, lean = rng.uniform(-0.15, 0.15), rng.uniform(-0.2, 0.2)
    x = place + lean * (y / size - 0.5) + bend * np.sin(3 * y / size)
    return np.stack([np.clip(x, 0.05, 0.95) * width, y], axis=1)
