"""Scoring a model on a split by each field's own protocol."""

from ._evaluate import Evaluation as Evaluation
from ._evaluate import evaluate_split as evaluate_split
from ._evaluate import evaluate_task as evaluate_task
from ._evaluate import predict_batch as predict_batch
from ._gain import mean_relative_gain as mean_relative_gain
