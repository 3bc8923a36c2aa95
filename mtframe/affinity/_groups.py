"""Which tasks to train together, and up to where, from how they were measured to affect each other."""

# Shapes: T tasks.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mtframe.errors import RecipeError
from mtframe.gradients import ALL, REST

from ._means import Affinity, Means

# The search goes through all 3^T ways to take a set of the tasks and a part of that.
_MOST_TASKS = 12

# Part of the best score that is worth no further network.
_ENOUGH = 0.9


@dataclass(frozen=True)
class Opposed:
    """The first stage, from the input, in which two tasks' gradients are opposed on average; their mean cosine."""

    stage: str
    task: str
    other: str
    cosine: float


@dataclass(frozen=True)
class Group:
    """The tasks of one network.

    Attributes:
        tasks: The tasks that the network is for.
        helpers: Tasks that train in it for what they give to these; another network is for them.
        shared: Stages that they can share, from the input.
        stages: Stages that were measured.
        opposed: What ends the sharing; None where nothing does.
    """

    tasks: tuple[str, ...]
    helpers: tuple[str, ...]
    shared: int
    stages: int
    opposed: Opposed | None


@dataclass(frozen=True)
class Grouping:
    """The best way to train all tasks in a number of networks, or in fewer where more bring nothing.

    Attributes:
        groups: One a network.
        score: Sum over tasks of the affinity that the others in its network have onto it.
    """

    groups: tuple[Group, ...]
    score: float


def check_count(tasks: Sequence[str]) -> None:
    """Raises RecipeError if there are too many tasks for an exact search."""
    if len(tasks) > _MOST_TASKS:
        raise RecipeError(f"tasks: groups are searched among {_MOST_TASKS} tasks at most, here are {len(tasks)}")


def best_groupings(affinity: Affinity) -> list[Grouping]:
    """The best groupings for a budget of 1, 2, ..., T networks.

    A task's score in a network is Σ_i Z[i, j] over the other tasks i in it: to first order the part by which their
    updates lower its loss, in a step on the sum of losses. (The paper takes the mean over i, and refuses a task
    alone, whose score is 0 here.) Affinities that differ from 0 no more than by chance count 0 (`Means.certain`). Of
    equal scores the one with fewer networks is taken.

    Raises:
        RecipeError: There are too many tasks for an exact search.
    """
    check_count(affinity.tasks)
    gain_TT = affinity.affinity.certain
    found: list[Grouping] = []
    for score, parts in _best_partitions(gain_TT):
        if found and score <= found[-1].score + 1e-12:
            found.append(found[-1])
        else:
            groups = tuple(_group(affinity, members, _helpers(gain_TT, members)) for members in parts)
            found.append(Grouping(groups, score))
    return found


def choose(groupings: Sequence[Grouping], networks: int | None = None) -> Grouping:
    """The best with this budget; without one, the fewest networks that reach nine tenths of the best score of all."""
    if networks is not None:
        return groupings[min(networks, len(groupings)) - 1]
    return next(grouping for grouping in groupings if grouping.score >= _ENOUGH * groupings[-1].score)


def first_opposed(cosines: Mapping[str, Means], tasks: Sequence[str], members: Sequence[str]) -> Opposed | None:
    """Where sharing ends: the first stage in which the mean cosine of two members is below 0.

    By more than by chance (`Means.certain`); if there are several pairs, the lowest.
    """
    places = [tasks.index(member) for member in members]
    for stage in _stages(cosines):
        certain_TT = cosines[stage].certain
        pairs = [(certain_TT[a, b].item(), tasks[a], tasks[b]) for a in places for b in places if a < b]
        value, task, other = min(pairs, default=(0.0, "", ""))
        if value < 0:
            return Opposed(stage, task, other, value)
    return None


def _stages(cosines: Mapping[str, Means]) -> list[str]:
    return [stage for stage in cosines if stage not in (ALL, REST)]


def _group(affinity: Affinity, members: Sequence[int], helpers: Sequence[int]) -> Group:
    names, stages = affinity.tasks, _stages(affinity.cosines)
    trained = [names[i] for i in sorted([*members, *helpers])]
    opposed = first_opposed(affinity.cosines, names, trained)
    shared = len(stages) if opposed is None else stages.index(opposed.stage)
    return Group(tuple(names[i] for i in members), tuple(names[i] for i in helpers), shared, len(stages), opposed)


def _best_partitions(gain_TT: Tensor) -> list[tuple[float, list[list[int]]]]:
    """The best score for 1, 2, ..., T parts, and the parts as lists of tasks."""
    count = len(gain_TT)
    full = (1 << count) - 1
    values = [_value(gain_TT, _members(mask, count)) for mask in range(full + 1)]
    # best[n][mask]: the best score of the tasks of `mask` in n + 1 networks, and which are with the first of them.
    best = [[(value, mask) for mask, value in enumerate(values)]]
    for _ in range(1, count):
        best.append([_best_split(values, best[-1], mask) for mask in range(full + 1)])
    return [(best[number][full][0], _parts(best, number, full, count)) for number in range(count)]


def _best_split(values: Sequence[float], fewer: Sequence[tuple[float, int]], mask: int) -> tuple[float, int]:
    """The first task of `mask` with some of the others in one network, the rest in those of `fewer`."""
    first = mask & -mask
    others = part = mask ^ first
    found = (-math.inf, mask)
    while part:
        own = first | (others ^ part)
        score = values[own] + fewer[part][0]
        if score > found[0]:
            found = score, own
        part = (part - 1) & others
    return found


def _parts(best: Sequence[Sequence[tuple[float, int]]], number: int, mask: int, count: int) -> list[list[int]]:
    parts = []
    for row in reversed(best[: number + 1]):
        own = row[mask][1]
        parts.append(_members(own, count))
        mask ^= own
    return parts


def _value(gain_TT: Tensor, members: list[int]) -> float:
    """Score of these tasks in one network, with all helpers that are worth it."""
    trained = [*members, *_helpers(gain_TT, members)]
    return sum(gain_TT[i, j].item() for j in members for i in trained if i != j)


def _helpers(gain_TT: Tensor, members: list[int]) -> list[int]:
    given = gain_TT[:, members].sum(1).tolist()
    return [i for i in range(len(gain_TT)) if i not in members and given[i] > 0]


def _members(mask: int, count: int) -> list[int]:
    return [i for i in range(count) if mask >> i & 1]
