"""Scoring a model on a split by each field's own protocol."""

from ._details import Bars as Bars
from ._details import Curves as Curves
from ._details import Detail as Detail
from ._details import Matrix as Matrix
from ._evaluate import Evaluation as Evaluation
from ._evaluate import evaluate as evaluate
from ._evaluate import ranks_by as ranks_by
from ._gain import mean_relative_gain as mean_relative_gain
from ._passes import Passes as Passes
from ._passes import TaskViews as TaskViews
from ._passes import View as View
from ._passes import task_views_of as task_views_of
from ._passes import views_of as views_of
from ._plots import finite as finite
from ._plots import write_details as write_details
