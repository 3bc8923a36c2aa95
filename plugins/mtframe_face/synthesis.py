"""Synthetic people, in LFW's layout or in folders: to learn from, and unseen ones to be verified on."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from math import comb
from pathlib import Path

import numpy as np

from mtframe.errors import RecipeError
from mtframe.synthesis import Array, check_least, open_root, render_all, write_jpeg

from ._render import Person, View, face_landmarks, render_face

IMAGES = "lfw-deepfunneled"
PARTIAL = f".{IMAGES}.partial"
LANDMARKS = "landmarks.csv"
PEOPLE_TRAIN, PEOPLE_TEST, PAIRS = "peopleDevTrain.txt", "peopleDevTest.txt", "pairsDevTest.txt"

SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnrstv" for vowel in "aeio")

# Streams of random numbers that must not run into one another.
_NAMES, _PAIRS, _PERSON, _VIEW = range(4)


def synthesize_people(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    people: int = 250,
    images: int = 12,
    test_people: int = 60,
    pairs: int = 500,
    size: int = 128,
    workers: int | None = None,
) -> dict[str, int]:
    """Renders people and writes them as View 1 of LFW; the pairs file names people nobody trains on.

    A person keeps the shape of the face; pose, light, expression, hair colour, clothes, background, occlusion
    and camera change with every image. The same options give the same bytes.

    Args:
        root: A new or empty folder, or one that an earlier call made, whose contents are then replaced.
        seed: Other seeds give other people.
        people: Number of people to train on.
        images: Images of each person, of the training and of the test.
        test_people: Number of people in the pairs file; none of them is trained on.
        pairs: Matched pairs, and as many mismatched ones.
        size: Side of the square images in pixels.
        workers: Processes; None for one per processor.

    Returns:
        Numbers of `people`, `test_people`, `images` (all of them) and `pairs` (matched and mismatched).

    Raises:
        RecipeError: An option is out of range, or `root` holds something else.
        DataError: `root` cannot be written.
    """
    check_least(
        seed=(seed, 0), people=(people, 2), images=(images, 2), test_people=(test_people, 2), pairs=(pairs, 1),
        size=(size, 32), workers=(workers, 1),
    )  # fmt: skip
    _check_pairs(pairs, test_people, images)
    options = {
        "seed": seed, "people": people, "images": images, "test_people": test_people, "pairs": pairs, "size": size,
    }  # fmt: skip
    root = open_root(root, "people", (PAIRS, PEOPLE_TRAIN, PEOPLE_TEST, IMAGES, PARTIAL), options)
    names = _names(people + test_people, np.random.default_rng([seed, _NAMES]))
    for name in names:
        (root / PARTIAL / name).mkdir(parents=True)
    render = partial(_write_image, root / PARTIAL, tuple(names), images, size, seed)
    render_all(render, len(names) * images, workers)
    train, test = sorted(names[:people]), sorted(names[people:])
    _write_people(root / PEOPLE_TRAIN, train, images)
    _write_people(root / PEOPLE_TEST, test, images)
    _write_pairs(root / PAIRS, test, images, pairs, np.random.default_rng([seed, _PAIRS]))
    # Last: without a people file everybody there would be trained on. A call that is stopped leaves no images
    # where they are looked for.
    (root / PARTIAL).rename(root / IMAGES)
    return {"people": people, "test_people": test_people, "images": len(names) * images, "pairs": 2 * pairs}


def synthesize_folders(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    people: int = 250,
    images: int = 12,
    test_people: int = 60,
    size: int = 128,
    workers: int | None = None,
) -> dict[str, int]:
    """Renders people into `train/NAME` and others into `val/NAME`, with a landmarks file; as for `lfw` otherwise.

    Args:
        root: A new or empty folder, or one that an earlier call made, whose contents are then replaced.
        seed: Other seeds give other people.
        people: Number of people to train on.
        images: Images of each person.
        test_people: Number of other people, to be evaluated.
        size: Side of the square images in pixels.
        workers: Processes; None for one per processor.

    Returns:
        Numbers of `people`, `test_people` and `images` (all of them).

    Raises:
        RecipeError: An option is out of range, or `root` holds something else.
        DataError: `root` cannot be written.
    """
    check_least(
        seed=(seed, 0), people=(people, 2), images=(images, 2), test_people=(test_people, 2), size=(size, 32),
        workers=(workers, 1),
    )  # fmt: skip
    options = {"seed": seed, "people": people, "images": images, "test_people": test_people, "size": size}
    # Last to be written, so first to go: no call that was stopped leaves a training split.
    root = open_root(root, "identity folders", ("train", "val", LANDMARKS, PARTIAL), options)
    names = _names(people + test_people, np.random.default_rng([seed, _NAMES]))
    for name in names:
        (root / PARTIAL / name).mkdir(parents=True)
    render = partial(_write_image, root / PARTIAL, tuple(names), images, size, seed)
    points = render_all(partial(_write_and_find, render, images, size, seed), len(names) * images, workers)
    folders = dict.fromkeys(names[:people], "train") | dict.fromkeys(names[people:], "val")
    lines = ["path," + ",".join(f"{axis}{point}" for point in range(1, 6) for axis in "xy")]
    for index, found in enumerate(points):
        name, number = names[index // images], index % images + 1
        lines.append(f"{folders[name]}/{name}/{name}_{number:04d}.jpg," + ",".join(f"{x:.1f}" for x in found.flat))
    (root / LANDMARKS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for folder in ("val", "train"):
        (root / folder).mkdir()
        for name in (name for name in names if folders[name] == folder):
            (root / PARTIAL / name).rename(root / folder / name)
    (root / PARTIAL).rmdir()
    return {"people": people, "test_people": test_people, "images": len(names) * images}


def _write_and_find(write: Callable[[int], None], images: int, size: int, seed: int, index: int) -> Array:
    """Writes an image; its landmarks."""
    write(index)
    return face_landmarks(*_drawn(images, seed, index)[:2], size)


def _check_pairs(pairs: int, test_people: int, images: int) -> None:
    most = min(test_people * comb(images, 2), comb(test_people, 2) * images**2)
    if pairs > most:
        raise RecipeError(
            f"pairs={pairs}: test_people={test_people} with images={images} each give only {most} different "
            f"pairs; ask for fewer pairs, or for more people or images"
        )


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """Different names, like `Mila_Karido`."""
    numbers = rng.choice(len(SYLLABLES) ** 5, count, replace=False)
    digits = np.stack(np.unravel_index(numbers, (len(SYLLABLES),) * 5), axis=1)
    parts = [[SYLLABLES[digit] for digit in row] for row in digits]
    return ["".join(part[:2]).title() + "_" + "".join(part[2:]).title() for part in parts]


def _write_image(folder: Path, names: tuple[str, ...], images: int, size: int, seed: int, index: int) -> None:
    person, view, rng = _drawn(images, seed, index)
    name, number = names[index // images], index % images + 1
    write_jpeg(folder / name / f"{name}_{number:04d}.jpg", render_face(person, view, size, rng))


def _drawn(images: int, seed: int, index: int) -> tuple[Person, View, np.random.Generator]:
    """Who is in image `index` and how, and the generator of everything else in it."""
    person, number = divmod(index, images)
    rng = np.random.default_rng([seed, _VIEW, person, number])
    return Person.draw(np.random.default_rng([seed, _PERSON, person])), View.draw(rng), rng


def _write_people(path: Path, names: list[str], images: int) -> None:
    path.write_text("".join([f"{len(names)}\n", *(f"{name}\t{images}\n" for name in names)]), encoding="utf-8")


def _write_pairs(path: Path, names: list[str], images: int, pairs: int, rng: np.random.Generator) -> None:
    """The count, then that many lines `NAME i j`, then as many `NAME i OTHER j`; images count from 1, as in LFW."""
    inner, couples = comb(images, 2), comb(len(names), 2)
    lines = [f"{pairs}\n"]
    first, second = np.triu_indices(images, 1)
    for index in np.sort(rng.choice(len(names) * inner, pairs, replace=False)):
        person, pair = divmod(int(index), inner)
        lines.append(f"{names[person]}\t{first[pair] + 1}\t{second[pair] + 1}\n")
    one, other = np.triu_indices(len(names), 1)
    for index in np.sort(rng.choice(couples * images**2, pairs, replace=False)):
        couple, i, j = np.unravel_index(index, (couples, images, images))
        lines.append(f"{names[one[couple]]}\t{i + 1}\t{names[other[couple]]}\t{j + 1}\n")
    path.write_text("".join(lines), encoding="utf-8")
