"""Training: the multi-task step and the trainer."""

from ._freezing import freeze_parts as freeze_parts
from ._inputs import ModelInputs as ModelInputs
from ._interruption import Interrupted as Interrupted
from ._life import add_task as add_task
from ._life import remove_task as remove_task
from ._meetings import Meetings as Meetings
from ._meetings import check_comparable as check_comparable
from ._progress import Progress as Progress
from ._step import forward_backward as forward_backward
from ._trainer import Trainer as Trainer
