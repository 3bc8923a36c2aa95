"""What is in a task's data, and what cannot be meant: looked at before anything is trained on it."""

from ._learned import Learned as Learned
from ._learned import across_tasks as across_tasks
from ._learned import learned_images as learned_images
from ._learned import learned_notes as learned_notes
from ._look import Look as Look
from ._look import SplitLook as SplitLook
from ._look import look_at as look_at
from ._picture import draw_surveys as draw_surveys
from ._survey import Found as Found
from ._survey import SplitSurvey as SplitSurvey
from ._survey import Surveyed as Surveyed
from ._survey import TaskSurvey as TaskSurvey
from ._survey import ask_head as ask_head
from ._survey import refuse as refuse
from ._survey import survey as survey
from ._table import lines_of as lines_of
from ._table import table_of as table_of
from ._tasks import surveyed_tasks as surveyed_tasks
