"""What is in the data, looked at before a training starts: by labels alone, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtframe.model import MultiTaskModel
from mtframe.survey import (
    Learned,
    Look,
    Surveyed,
    TaskSurvey,
    across_tasks,
    ask_head,
    draw_surveys,
    survey,
    table_of,
)

from ._log import LOG

# Images of a split for which a head is asked what it can learn.
_LEARNABLE = 200

# Images of a split whose labels are read: all of COCO, and of millions as many as take seconds.
_MOST = 200_000


def survey_labels(tasks: Sequence[Surveyed], learned: Learned) -> list[TaskSurvey]:
    """What is in the data of each task, and what of it the training learns from elsewhere."""
    look = Look(decode=False, most=_MOST)
    surveys = {task.name: survey(task, look) for task in tasks}
    for found in across_tasks(tasks, learned):
        surveys[found.task].found.append(found)
    return list(surveys.values())


def ask_heads(tasks: Sequence[Surveyed], surveys: Sequence[TaskSurvey], model: MultiTaskModel) -> None:
    """Adds to the surveys what the heads of a model cannot learn."""
    for task, said in zip(tasks, surveys, strict=True):
        ask_head(task, said, model.heads[task.name], _LEARNABLE)


def log_surveys(surveys: Sequence[TaskSurvey], picture: Path) -> None:
    """Writes them into the log, and draws them. Raises OSError where the picture cannot be written."""
    for one in surveys:
        for line in table_of(one).splitlines():
            LOG.info("%s", line)
        for found in one.found:
            (LOG.info if found.finding.severity == "note" else LOG.warning)("%s", found.line())
    draw_surveys(surveys, picture)
