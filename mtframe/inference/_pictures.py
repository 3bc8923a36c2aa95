"""Pictures as inputs of the network: found, read by worker processes, and made inputs for each group of tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mtframe.data import (
    Batch,
    DecodeSize,
    Sample,
    evaluation_batch,
    inputs_of,
    load,
    read_image,
)
from mtframe.errors import BadImageError, RecipeError
from mtframe.folders import IMAGE_SUFFIXES, images_below
from mtframe.kinds import Transform

from ._names import distinct_names

# By the tasks that look at its inputs.
Transforms = Mapping[tuple[str, ...], Transform]

Picture = str | os.PathLike[str] | Image.Image | Tensor


@dataclass
class Pictures:
    """Some pictures that could be read, ready for the network.

    Attributes:
        names: What each is called.
        sizes: (height, width) of each in pixels, upright.
        batches: The inputs of all of them, by the tasks that look at these.
        unreadable: Why others could not be read.
    """

    names: list[str]
    sizes: list[tuple[int, int]]
    batches: dict[tuple[str, ...], Batch]
    unreadable: list[str] = field(default_factory=list)


class FilePictures(torch.utils.data.Dataset[Any]):
    """Picture files in batches.

    Args:
        files: The files, in any number.
        transforms: What makes inputs of them, without augmentation.
        batch_size: Files in a batch.
    """

    def __init__(self, files: Sequence[Path], transforms: Transforms, batch_size: int) -> None:
        self.files = files
        self.transforms = dict(transforms)
        self.batch_size = batch_size
        self.decode_size = decode_size_of(transforms)

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def __getitem__(self, number: int) -> Pictures:
        """Batch `number`: the files of which every transform can make an input."""
        samples, unreadable = list[Sample](), list[str]()
        for file in self.files[number * self.batch_size : (number + 1) * self.batch_size]:
            try:
                samples.append(sample_of(file, self.decode_size))
            except BadImageError as error:
                unreadable.append(str(error))
        batches: dict[tuple[str, ...], Batch] = {}
        taken = -1
        # Once more where a later transform makes nothing of what an earlier one has taken.
        while samples and len(samples) != taken:
            taken = len(samples)
            for tasks, transform in self.transforms.items():
                samples, inputs, unfit = inputs_of(transform, samples)
                unreadable += unfit
                if inputs is not None:
                    batches[tasks] = evaluation_batch(inputs, {})
        names, sizes = [sample.id for sample in samples], [sample.size for sample in samples]
        return Pictures(names, sizes, batches if samples else {}, unreadable)

    def batches(self, workers: int) -> Iterator[Pictures]:
        """All batches, prefetched by worker processes where there are enough to be worth their start."""
        return load(self, range(len(self)), workers if len(self) > 2 else 0, pin_memory=False)


@dataclass(frozen=True, slots=True)
class Source:
    """A picture file, and what the files that are made of it are called.

    Attributes:
        file: The picture.
        name: A path without suffix, relative to the folder that results go to; no two sources' are alike.
    """

    file: Path
    name: str


def find_pictures(sources: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """The image files that sources name, each once, however its path is spelled.

    Args:
        sources: Files, which are taken as they are, and folders, which stand for all images below them, sorted
            (`mtframe.folders.images_below`).

    Raises:
        RecipeError: A source does not exist, or a folder holds no image.
    """
    found: dict[str, tuple[Path, Path]] = {}

    def add(file: Path, inner: Path) -> None:
        found.setdefault(os.path.abspath(file), (file, inner))

    for source in map(Path, sources):
        if source.is_dir():
            below = sorted(map(Path, images_below(source).files))
            if not below:
                raise RecipeError(f"{source}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})")
            for inner in below:
                add(source / inner, inner)
        elif source.exists():
            add(source, Path(source.name))
        else:
            raise RecipeError(f"{source}: no such file or folder")
    files = list(found.values())
    return [Source(file, name) for (file, _), name in zip(files, distinct_names(files), strict=True)]


def sample_of(picture: Picture, decode_size: DecodeSize | None, name: str = "") -> Sample:
    """A picture without labels; files and Pillow images upright, as their EXIF orientation says.

    Args:
        picture: A file, a Pillow image, or a (3, H, W) uint8 RGB tensor.
        decode_size: Of files, see `read_image`.
        name: What errors call it; a file has one.

    Raises:
        BadImageError: The file cannot be read.
        ValueError: A tensor of another form.
    """
    if isinstance(picture, str | os.PathLike):
        pixels, size = read_image(picture, decode_size, upright=True)
        return Sample(pixels, {}, size, id=name or os.fspath(picture))
    if isinstance(picture, Image.Image):
        upright = ImageOps.exif_transpose(picture).convert("RGB")
        picture = torch.from_numpy(np.array(upright)).permute(2, 0, 1)
    elif picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] != 3:
        raise ValueError(f"expected a (3, H, W) uint8 tensor, got {tuple(picture.shape)} {picture.dtype}")
    return Sample(picture, {}, (picture.shape[1], picture.shape[2]), id=name)


def decode_size_of(transforms: Transforms) -> DecodeSize | None:
    """How large pictures are worth decoding for all of these; None, the full size, if one wants that."""
    sizes = [transform.decode_size for transform in transforms.values()]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return None
    return DecodeSize(max(size.shorter for size in known), max(size.longer for size in known))
