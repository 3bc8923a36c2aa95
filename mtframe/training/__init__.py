"""Training: the multi-task step and the trainer."""

from ._affinity import Affinity as Affinity
from ._affinity import Means as Means
from ._affinity import estimate_affinity as estimate_affinity
from ._affinity import lookahead as lookahead
from ._groups import Group as Group
from ._groups import Grouping as Grouping
from ._groups import best_groupings as best_groupings
from ._groups import check_count as check_count
from ._groups import choose as choose
from ._life import add_task as add_task
from ._life import remove_task as remove_task
from ._progress import Progress as Progress
from ._step import training_step as training_step
from ._trainer import Interrupted as Interrupted
from ._trainer import Trainer as Trainer
