"""Training: the multi-task step and the trainer."""

from ._life import add_task as add_task
from ._life import remove_task as remove_task
from ._meetings import Meetings as Meetings
from ._meetings import check_comparable as check_comparable
from ._progress import Progress as Progress
from ._start import freeze_parts as freeze_parts
from ._step import taken_apart as taken_apart
from ._step import training_step as training_step
from ._trainer import Interrupted as Interrupted
from ._trainer import Trainer as Trainer
