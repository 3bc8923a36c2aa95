"""Whether two pictures show the same, by the similarity of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from mtframe.errors import RecipeError

from ._gallery import embedding_tasks
from ._pictures import Picture
from ._predictor import Predictor


@dataclass(frozen=True, slots=True)
class Verification:
    """What comes out of comparing two pictures.

    Attributes:
        task: Whose embeddings were compared.
        similarity: Their cosine, -1 to 1.
        threshold: From which similarity on they show the same.
    """

    task: str
    similarity: float
    threshold: float

    @property
    def same(self) -> bool:
        """Whether they show the same."""
        return self.similarity >= self.threshold


def verify(
    predictor: Predictor, first: Picture, second: Picture, task: str | None = None, accept: str | None = None
) -> Verification:
    """Compares two pictures.

    Args:
        predictor: A loaded run.
        first: A picture, as of `Predictor.predict`.
        second: Another one.
        task: One that gives embeddings; may be left out if only one does.
        accept: Which threshold decides, see `Predictor.threshold`; the one that the run has chosen if None.

    Raises:
        BadImageError: A file cannot be read.
        RecipeError: No task gives embeddings, or several do and none is named; or there is no threshold.
    """
    name = _task(predictor, task)
    threshold = predictor.threshold(name, accept)
    if threshold is None:
        raise RecipeError(_missing(predictor, name))
    one, other = (predictor.embedding(name, found[name]) for found in predictor.predict_many((first, second), [name]))
    return Verification(name, float(one.double() @ other.double()), threshold)


def _task(predictor: Predictor, task: str | None) -> str:
    able = embedding_tasks(predictor, predictor.chosen([task] if task else None), "verify")
    if len(able) > 1:
        raise RecipeError(f"verify: the tasks {', '.join(able)} give embeddings; say which one with --task")
    return able[0]


def _missing(predictor: Predictor, task: str) -> str:
    known = predictor.thresholds.get(task)
    if known is None or not known.chosen:
        why = "none was chosen with these weights: no metric of the task chooses one, they were not evaluated, or an "
        why += "older version trained them"
        named = ""
    else:
        why = f"its validation data ({known.data}) could not tell the one for {known.chosen}"
        named = "".join(f", or --accept {name} for {value:.4f}" for name, value in known.values.items())
    return (
        f"verify: task {task} of this run has no threshold: {why}. Say from which similarity on two pictures show the "
        f"same, as --accept 0.4{named}"
    )
