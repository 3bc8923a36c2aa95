"""Which tasks to train together, and up to where, from how they were measured to affect each other."""

# Shapes: T tasks.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mtframe.errors import RecipeError

from ._affinity import Affinity, Means
from ._stage_gradients import ALL, REST

_MOST_TASKS = 12
"""The search is exact: it looks at all 3^T ways to take a set of the tasks and a part of that."""

_ENOUGH = 0.9


@dataclass(frozen=True)
class Network:
    """A network of a proposal.

    Attributes:
        tasks: The tasks that it is for.
        helpers: Tasks that train in it for what they give to these; another network is for them.
        shared: Stages to share, from the input.
        stages: Stages that were looked at.
        why: What ends the sharing: stage, a task, another, their mean cosine there; None where nothing does.
    """

    tasks: tuple[str, ...]
    helpers: tuple[str, ...] = ()
    shared: int = 0
    stages: int = 0
    why: tuple[str, str, str, float] | None = None


@dataclass(frozen=True)
class Grouping:
    """The best way to train all tasks in a number of networks.

    Attributes:
        networks: As many as the number, or fewer where more bring nothing.
        score: Sum over tasks of the affinity that the others in its network have onto it.
    """

    networks: tuple[Network, ...]
    score: float


def best_groupings(affinity: Affinity) -> list[Grouping]:
    """For a budget of 1, 2, ..., T networks.

    A task's score in a network is Σ_i Z_{i→j} over the other tasks i in it: to first order the part by which their
    updates lower its loss in a step on the sum of losses. (The paper takes the mean over i, and never one task alone;
    here such a one has score 0.) Affinities within two standard errors of 0 count 0. Of equal scores the one with fewer
    networks wins.

    Raises:
        RecipeError: There are too many tasks for an exact search.
    """
    count = len(affinity.tasks)
    if count > _MOST_TASKS:
        raise RecipeError(f"tasks: groups are searched for up to {_MOST_TASKS} tasks, here are {count}")
    gain_TT = affinity.affinity.certain
    parts = _best_partitions(gain_TT)
    found: list[Grouping] = []
    for score, sets in parts:
        if found and score <= found[-1].score + 1e-12 * abs(score):
            found.append(found[-1])
            continue
        networks = tuple(_network(affinity, members, _helpers(gain_TT, members)) for members in sets)
        found.append(Grouping(networks, score))
    return found


def choose(groupings: Sequence[Grouping], networks: int | None = None) -> Grouping:
    """The best with this budget; without one, the fewest networks that reach nine tenths of the best score of all."""
    if networks is not None:
        return groupings[min(networks, len(groupings)) - 1]
    best = groupings[-1].score
    return next(grouping for grouping in groupings if grouping.score >= _ENOUGH * best)


def branch(
    cosines: Mapping[str, Means], tasks: Sequence[str], members: Sequence[str]
) -> tuple[int, int, tuple[str, str, str, float] | None]:
    """Up to where tasks can share, of how many stages that were looked at, and what ends it.

    They share all stages before the first one, from the input, where the mean cosine of two of them is below 0 by more
    than two standard errors.
    """
    stages = [stage for stage in cosines if stage not in (ALL, REST)]
    places = [tasks.index(member) for member in members]
    for shared, stage in enumerate(stages):
        certain = cosines[stage].certain
        worst = min(((certain[a, b].item(), a, b) for a in places for b in places if a < b), default=(0.0, 0, 0))
        if worst[0] < 0:
            return shared, len(stages), (stage, tasks[worst[1]], tasks[worst[2]], worst[0])
    return len(stages), len(stages), None


def _network(affinity: Affinity, members: Sequence[int], helpers: Sequence[int]) -> Network:
    names = affinity.tasks
    chosen, helping = tuple(names[i] for i in members), tuple(names[i] for i in helpers)
    return Network(chosen, helping, *branch(affinity.cosines, names, [n for n in names if n in chosen + helping]))


def _best_partitions(gain_TT: Tensor) -> list[tuple[float, list[list[int]]]]:
    """For each number of parts the best score and the parts, as lists of tasks."""
    count = len(gain_TT)
    full = (1 << count) - 1
    value = [0.0] * (full + 1)
    for mask in range(1, full + 1):
        value[mask] = _value(gain_TT, _members(mask, count))
    # best[mask]: score of the tasks of mask in so many networks, and the one that has the first of them.
    best: list[list[tuple[float, int]]] = [[(value[mask], mask) for mask in range(full + 1)]]
    for _ in range(1, count):
        row = [(-math.inf, 0)] * (full + 1)
        for mask in range(1, full + 1):
            first = mask & -mask
            rest = part = mask ^ first
            while part:
                # The first task with what is not in `part`; the tasks in `part` go to the other networks.
                own = first | (rest ^ part)
                score = value[own] + best[-1][part][0]
                if score > row[mask][0]:
                    row[mask] = score, own
                part = (part - 1) & rest
        best.append(row)
    return [(best[number][full][0], _parts(best, number, full, count)) for number in range(count)]


def _parts(best: list[list[tuple[float, int]]], number: int, mask: int, count: int) -> list[list[int]]:
    parts = []
    while mask:
        own = best[number][mask][1]
        parts.append(_members(own, count))
        mask, number = mask ^ own, number - 1
    return parts


def _value(gain_TT: Tensor, members: list[int]) -> float:
    """Score of these tasks in one network, with all helpers that it is worth to have."""
    everyone = [*members, *_helpers(gain_TT, members)]
    return sum(gain_TT[i, j].item() for j in members for i in everyone if i != j)


def _helpers(gain_TT: Tensor, members: list[int]) -> list[int]:
    given = gain_TT[:, members].sum(1).tolist()
    return [i for i in range(len(gain_TT)) if i not in members and given[i] > 0]


def _members(mask: int, count: int) -> list[int]:
    return [i for i in range(count) if mask >> i & 1]
