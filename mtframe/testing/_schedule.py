"""Checks of schedules."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtframe.kinds import Schedule

from ._check import checks, passes_first
from ._violation import expect

if TYPE_CHECKING:
    from ._subject import Subject

# Batches that show all images of each task, and in which steps each takes part, of schedules that ask.
_LENGTHS = {"faces": 7, "objects": 3, "scenes": 1}
_EVERY = {"faces": 1, "objects": 2, "scenes": 3}

# Steps in a row that are checked one by one.
_STEPS = 200

# To count up to this step one by one takes seconds; the seconds in which it must be answered.
_LATE, _LONGEST = 5_000_000, 0.1


def make(subject: Subject, lengths: Mapping[str, int] = _LENGTHS) -> Schedule:
    """A schedule for some tasks."""
    schedule: Schedule = subject.build(lengths=dict(lengths), every={task: _EVERY[task] for task in lengths})
    return schedule


def one_batch_at_most(subject: Subject) -> None:
    """A step takes at most one batch of a task, and one batch at least; before the first step none is taken."""
    for lengths in (_LENGTHS, {"faces": 4}):
        schedule = make(subject, lengths)
        before = schedule.draws(0)
        expect(set(before) == set(lengths), f"draws(0) has {sorted(before)}, the tasks are {sorted(lengths)}")
        expect(not any(before.values()), f"draws(0) is {dict(before)}, where no step is done")
        for step in range(_STEPS):
            after = schedule.draws(step + 1)
            taken = {task: after[task] - before[task] for task in lengths}
            expect(set(taken.values()) <= {0, 1}, f"step {step} takes {taken} batches of {len(lengths)} tasks")
            expect(any(taken.values()), f"step {step} takes no batch, so that it would train nothing")
            before = after


def every_task_gets_its_turn(subject: Subject) -> None:
    """`steps_per_epoch` steps show every image of every task: none gets fewer batches than show its images once."""
    for lengths in (_LENGTHS, {"faces": 4}):
        schedule = make(subject, lengths)
        steps = schedule.steps_per_epoch
        expect(isinstance(steps, int) and steps >= 1, f"steps_per_epoch is {steps!r}, expected a whole number above 0")
        for task, count in schedule.draws(steps).items():
            expect(
                count >= lengths[task],
                f"steps_per_epoch is {steps}, and in that many steps {task!r} gets {count} batches of {lengths[task]}",
            )


def function_of_the_step(subject: Subject) -> None:
    """`draws` depends on nothing that was asked before, and a second instance gives the same: runs go on with one."""
    passes_first(one_batch_at_most, subject)
    schedule, other = make(subject), make(subject)
    expected = {step: dict(schedule.draws(step)) for step in range(0, _STEPS, 7)}
    for step in reversed(expected):
        for instance in (schedule, other):
            found = dict(instance.draws(step))
            expect(found == expected[step], f"draws({step}) is {found}, and was {expected[step]} in another order")


def late_steps_are_cheap(subject: Subject) -> None:
    """A step in the millions is answered as fast as the first: it is calculated, not counted up to."""
    schedule, taken = make(subject), list[float]()
    # The fastest of several: other programs may hold up some.
    for step in range(_LATE, _LATE + 3):
        begun = time.perf_counter()
        schedule.draws(step)
        taken.append(time.perf_counter() - begun)
    expect(min(taken) < _LONGEST, f"draws({_LATE}) takes {min(taken):.2f} s, and it is asked twice a step")


CHECKS = checks(one_batch_at_most, every_task_gets_its_turn, function_of_the_step, late_steps_are_cheap)
