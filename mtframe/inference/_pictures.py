"""Pictures as inputs of the network: found, read by worker processes, and made inputs for each group of tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mtframe.data import (
    Batch,
    DecodeSize,
    PictureInMemory,
    Sample,
    evaluation_batch,
    inputs_of,
    load,
    read_image,
    to_rgb,
)
from mtframe.errors import BadImageError, RecipeError
from mtframe.folders import FILM_SUFFIXES, IMAGE_SUFFIXES, films_below, images_below, is_film
from mtframe.kinds import Transform
from mtframe.video import is_camera

from ._names import distinct_names

# By the tasks that look at its inputs.
Transforms = Mapping[tuple[str, ...], Transform]

# What is predicted: a file, or what `to_rgb` takes.
Picture = str | os.PathLike[str] | PictureInMemory

# A picture as each group of tasks is given it.
SamplesOf = Mapping[tuple[str, ...], Sample]


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

    def __len__(self) -> int:
        return -(-len(self.files) // self.batch_size)

    def __getitem__(self, number: int) -> Pictures:
        """Batch `number`: the files of which every transform can make an input."""
        pictures, unreadable = list[SamplesOf](), list[str]()
        for file in self.files[number * self.batch_size : (number + 1) * self.batch_size]:
            try:
                pictures.append(samples_of(file, self.transforms))
            except BadImageError as error:
                unreadable.append(str(error))
        return inputs_of_pictures(pictures, self.transforms, unreadable)

    def batches(self, workers: int) -> Iterator[Pictures]:
        """All batches, prefetched by worker processes where there are enough to be worth their start."""
        return load(self, range(len(self)), workers if len(self) > 2 else 0, pin_memory=False)


def inputs_of_pictures(pictures: list[SamplesOf], transforms: Transforms, unreadable: list[str]) -> Pictures:
    """The pictures of which every transform can make an input, with these; what is said of the others is added.

    Args:
        pictures: Some, as each group of tasks is given them.
        transforms: What makes inputs of them.
        unreadable: Why others could not be read.
    """
    batches: dict[tuple[str, ...], Batch] = {}
    taken = -1
    # Once more where a later transform makes nothing of what an earlier one has taken.
    while pictures and len(pictures) != taken:
        taken = len(pictures)
        for tasks, transform in transforms.items():
            samples, inputs, unfit = inputs_of(transform, [picture[tasks] for picture in pictures])
            fit = {id(sample) for sample in samples}
            pictures = [picture for picture in pictures if id(picture[tasks]) in fit]
            unreadable += unfit
            if inputs is not None:
                batches[tasks] = evaluation_batch(inputs, {})
    first = [next(iter(picture.values())) for picture in pictures]
    names, sizes = [sample.id for sample in first], [sample.size for sample in first]
    return Pictures(names, sizes, batches if pictures else {}, unreadable)


@dataclass(frozen=True, slots=True)
class Source:
    """A picture or film, and what the files that are made of it are called.

    Attributes:
        file: The picture's file, the film's, or a camera.
        name: A path without suffix, relative to the folder that results go to; no two sources' are alike.
        film: Whether it is a film or a camera.
    """

    file: Path
    name: str
    film: bool = False


def find_pictures(sources: Sequence[str | os.PathLike[str]], *, films: bool = False) -> list[Source]:
    """The image files that sources name, each once, however its path is spelled; films and cameras too, if wanted.

    Args:
        sources: Files, which are taken as they are, and folders, which stand for all images, and films, below them,
            sorted (`mtframe.folders.images_below`, `films_below`).
        films: Whether a film's file, by its suffix, is one, and a camera's is one.

    Raises:
        RecipeError: A source does not exist, or a folder holds nothing of the kind.
    """
    found: dict[str, tuple[Path, Path, bool]] = {}

    def add(file: Path, inner: Path, film: bool) -> None:
        found.setdefault(os.path.abspath(file), (file, inner, film))

    for given in sources:
        source = Path(given)
        if source.is_dir():
            below = {Path(name): False for name in images_below(source).files}
            below |= {Path(name): True for name in (films_below(source) if films else ())}
            if not below:
                what = f"no image{' and no film' * films} in this folder"
                suffixes = (*IMAGE_SUFFIXES, *FILM_SUFFIXES) if films else IMAGE_SUFFIXES
                raise RecipeError(f"{source}: {what} (looked for {', '.join(suffixes)})")
            for inner, film in sorted(below.items()):
                add(source / inner, inner, film)
        elif source.exists():
            add(source, Path(source.name), films and (is_film(source.name) or is_camera(source)))
        elif "://" in os.fspath(given):
            raise RecipeError(f"{os.fspath(given)}: only files and cameras of this machine are read, and no addresses")
        else:
            raise RecipeError(f"{source}: no such file or folder")
    files = [(file, inner) for file, inner, _ in found.values()]
    names = distinct_names(files)
    return [Source(file, name, film) for (file, _, film), name in zip(found.values(), names, strict=True)]


def samples_of(picture: Picture, transforms: Transforms, name: str = "") -> SamplesOf:
    """A picture without labels, for each group of tasks; of a file or a Pillow image upright, as EXIF says.

    Each group is given the pixels that evaluation gives it: a large JPEG is decoded for each at the size that its own
    transform asks for, whatever other tasks are asked at the same time.

    Args:
        picture: A file, or what `to_rgb` takes.
        transforms: What will make inputs of it.
        name: What errors call it; a file has one.

    Raises:
        BadImageError: The file cannot be read, or the picture is none that `to_rgb` takes.
        RecipeError: It is nothing of the kind.
    """
    if not isinstance(picture, str | os.PathLike):
        pixels = to_rgb(picture, name or "the picture")
        return dict.fromkeys(transforms, Sample(pixels, {}, (pixels.shape[1], pixels.shape[2]), id=name))
    decoded: dict[DecodeSize | None, Sample] = {}
    for transform in transforms.values():
        if (decode_size := transform.decode_size) not in decoded:
            pixels, size = read_image(picture, decode_size, upright=True)
            decoded[decode_size] = Sample(pixels, {}, size, id=name or os.fspath(picture))
    return {tasks: decoded[transform.decode_size] for tasks, transform in transforms.items()}
