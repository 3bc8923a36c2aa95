"""What data sets of identities share: what metrics ask of them, batches of several images a person, pairs, roles."""

# Shapes: N images, G groups of one person's images, P pairs.

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from mtframe.errors import RecipeError

from ._centres import NOBODY
from .pairs import FOLDS, Pairs


@dataclass(frozen=True, slots=True)
class Roles:
    """Who is who in identification (1:N).

    Attributes:
        identity: (N,) int64, the person in each image of the data set.
        gallery: (N,) bool, whether the image is enrolled. All others are probes; a probe of somebody without an
            enrolled image is *unknown* and must be rejected.
    """

    identity: np.ndarray
    gallery: np.ndarray


@runtime_checkable
class HasPairs(Protocol):
    """A data set whose splits may be verified (1:1).

    Attributes:
        pairs: Pairs of positions in this split; None where it has none.
    """

    pairs: Pairs | None


@runtime_checkable
class HasRoles(Protocol):
    """A data set whose splits may be searched (1:N).

    Attributes:
        roles: Who is enrolled; None where nobody is.
    """

    roles: Roles | None


@runtime_checkable
class NamesPeople(Protocol):
    """A data set that knows its people by name, so that a metric can refuse those whom the model has learned."""

    @property
    def people(self) -> Collection[str]:
        """Names of everybody in this split."""
        ...


@runtime_checkable
class FollowsProtocol(Protocol):
    """A data set of whose splits one may be that of a published protocol.

    Attributes:
        protocol: Its name; None for any other split.
    """

    protocol: str | None

    @property
    def photographed(self) -> Collection[str]:
        """Names of everybody in the protocol's images: to learn from others is to use outside data."""
        ...


class Texts:
    """Many short texts in one buffer, to be read by position.

    A list of them would be copied into every worker process of a loader, as the processes count references.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].tobytes().decode("utf-8", "surrogateescape")


def at_least(least: int, **options: int) -> None:
    """Raises RecipeError for an option that is less."""
    for name, value in options.items():
        if value < least:
            raise RecipeError(f"{name}: must be {least} or more, got {value}")


def check_split(dataset: str, split: str, splits: Sequence[str]) -> None:
    """Raises RecipeError for a split that the data set does not know."""
    if split not in splits:
        raise RecipeError(f"split: {dataset} has no {split!r}; it has {', '.join(splits)}")


def class_by_path(path: str, root: Path, folder: Path, classes: Mapping[str, int]) -> int:
    """The class of an image by its path below `root`, if it lies in a class's folder in `folder`; NOBODY otherwise."""
    within, _, name = os.path.dirname(path).rpartition("/")
    return classes.get(name, NOBODY) if root / within == folder else NOBODY


def grouped_order(labels: np.ndarray, per_identity: int, rng: np.random.Generator) -> np.ndarray:
    """One epoch's order in which `per_identity` images of a person stand in a row.

    Every image comes once. Groups come in a random order, those that lack images last, so that batches of a multiple
    of `per_identity` hold whole groups (P × K batches, arXiv:1703.07737, section 2).

    Args:
        labels: (N,) int, the person in each image.
        per_identity: K, 1 or more.
        rng: Draws the order.

    Returns:
        (N,) int64, a permutation.
    """
    shuffled = rng.permutation(len(labels))
    if per_identity == 1:
        return shuffled
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    person = labels[order]
    first = np.concatenate(([True], person[1:] != person[:-1]))
    starts = np.flatnonzero(first)
    rank = np.arange(len(order)) - starts[np.cumsum(first) - 1]
    group = np.cumsum(rank % per_identity == 0) - 1
    sizes_G = np.bincount(group)
    place_G = np.empty(len(sizes_G), np.int64)
    place_G[np.lexsort((rng.random(len(sizes_G)), sizes_G < per_identity))] = np.arange(len(sizes_G))
    return order[np.argsort(place_G[group], kind="stable")]


def balanced_order(labels: np.ndarray, per_identity: int, rng: np.random.Generator) -> np.ndarray:
    """One epoch's order in which every person comes equally often, `per_identity` images in a row.

    It is as long as there are images: people with few come with the same ones again, and of people with many some are
    left to other epochs. People come in permutations, one after the other, so that P × K consecutive images show P
    people wherever these do not span two of them.

    Args:
        labels: (N,) int, the person in each image.
        per_identity: K, 1 or more.
        rng: Draws the order.

    Returns:
        (N,) int64, positions.
    """
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    groups = -(-len(labels) // per_identity)
    rounds = -(-groups // len(counts))
    people_G = np.concatenate([rng.permutation(len(counts)) for _ in range(rounds)])[:groups]
    # Each time a person comes, with the next of the person's images.
    first_G = np.arange(groups) // len(counts) * per_identity
    place_GK = (first_G[:, None] + np.arange(per_identity)) % counts[people_G, None]
    return order[(starts[people_G, None] + place_GK).ravel()[: len(labels)]]


def epoch_order(labels: np.ndarray, per_identity: int, balanced: bool, rng: np.random.Generator) -> np.ndarray:
    """One epoch's order (N,): every image once (`grouped_order`), or every person equally often (`balanced_order`)."""
    return (balanced_order if balanced else grouped_order)(labels, per_identity, rng)


def draw_pairs(identity: np.ndarray, count: int, rng: np.random.Generator) -> Pairs:
    """Different pairs of images: `count` of one person and as many of two people.

    Where there are fewer pairs of one sort, no more are drawn of the other: accuracy is then no majority's share. They
    are cut into ten folds, each the next tenth of both sorts, as View 1 of LFW is here.

    Args:
        identity: (N,) int, ascending: the person in each image.
        count: Pairs of each sort.
        rng: Draws them.
    """
    images = np.arange(len(identity))
    ends = np.searchsorted(identity, identity, side="right")
    sorts = ((images + 1, ends - images - 1), (ends, len(identity) - ends))
    each = min(count, *(int(partners.sum()) for _, partners in sorts))
    first, second = np.concatenate([_draw(start, partners, each, rng) for start, partners in sorts], axis=1)
    fold = np.arange(each) * FOLDS // max(1, each)
    return Pairs(first, second, identity[first] == identity[second], np.concatenate((fold, fold)))


def _draw(start: np.ndarray, partners: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(2, count): pairs of an image with one of its `partners` from `start` on, all equally likely, none twice."""
    ends = np.cumsum(partners)
    # In a random order, so that a fold does not hold a few people's pairs only.
    numbers = rng.choice(int(partners.sum()), count, replace=False)
    first = np.searchsorted(ends, numbers, side="right")
    return np.stack((first, start[first] + numbers - (ends - partners)[first]))


def enrol(identity: np.ndarray, images: int, unknown: np.ndarray | None = None) -> Roles:
    """Enrols each person's first images; people who would have no probe left are not enrolled.

    Args:
        identity: (N,) int: the person in each image.
        images: Enrolled images of a person.
        unknown: People who are not enrolled.
    """
    order = np.argsort(identity, kind="stable")
    _, starts, counts = np.unique(identity[order], return_index=True, return_counts=True)
    rank = np.empty(len(identity), np.int64)
    rank[order] = np.arange(len(identity)) - np.repeat(starts, counts)
    enough = np.empty(len(identity), bool)
    enough[order] = np.repeat(counts > images, counts)
    left_out = np.isin(identity, unknown if unknown is not None else [])
    return Roles(identity.astype(np.int64), (rank < images) & enough & ~left_out)
