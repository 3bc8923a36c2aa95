"""Face verification by the LFW protocol."""

# Shapes: P pairs, D numbers in an embedding.

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError, RecipeError
from mtframe.evaluation import Curves
from mtframe.kinds import Dataset
from mtframe.metrics import PerImage, Thresholds

from ._embeddings import embedding, learned_elsewhere, refuse_learned, unit_vectors
from .identities import FollowsProtocol, HasPairs, NamesPeople
from .landmarks import OUTSIDE
from .pairs import VIEW_2, Pairs
from .verification_scores import (
    FALSE_ACCEPT_RATES,
    best_threshold,
    decisions,
    far_name,
    roc,
    threshold_at,
    verification_scores,
)

# What the threshold is chosen for where no false accept rate is asked for.
ACCURACY = "accuracy"

# Fewer pairs are worth a note.
_FEW = 100


class FaceVerification:
    """Same person or not? The LFW protocol over cosine similarities of embeddings.

    Accuracy is the mean over folds, each decided with the threshold that is best on all the other folds.
    Beside it stand its standard error, the area under the ROC curve, the equal error rate and the true accept
    rate at false accept rates of 1e-1 to 1e-4 (n/a with fewer than 1 / rate pairs of different people).

    `threshold@accuracy` is the cosine from which on most of all pairs are decided rightly if it counts as the same
    person; `threshold@far=1e-2` is the lowest with which at most one in a hundred pairs of different people does. Those
    of the validation pairs are kept with the weights, for `mtframe verify` and galleries; `accuracy@kept`, `far@kept`
    and `frr@kept` are what the kept one does with the pairs that are evaluated.

    Huang et al., TR 07-49, section 4; Huang and Learned-Miller, UM-CS-2014-003 ("unrestricted" results).

    Args:
        dataset: The evaluated split; has pairs (`HasPairs`), and may name its people (`NamesPeople`) and follow a
            protocol (`FollowsProtocol`); all in `mtframe_face.identities`.
        info: Of the training data; its `classes` are the people that the model learned from.
        outside: What else the model has learned from, in words.
        learned: Names of people whom it has learned elsewhere, by where.
        far: False accept rate for which the kept threshold is chosen, above 0 and below 1; null for the threshold that
            decides most pairs rightly.

    Attributes:
        notes: For View 2 of LFW, the category of outside data. Landmarks by which faces are aligned are label-free.
            Anything else that was learned from other data counts as labelled: pretrained weights come from labels
            too, and this is the category with least claims. And which false accept rates the pairs are too few for.

    Raises:
        DataError: The split has no pairs, or one of its people was trained on.
        RecipeError: `far` is out of its range.
    """

    target: ClassVar[str] = "identity"
    asks: ClassVar[tuple[type, ...]] = (HasPairs, NamesPeople, FollowsProtocol)
    primary = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        dataset: Dataset,
        info: DataInfo | None = None,
        outside: Sequence[str] = (),
        learned: Mapping[str, Collection[str]] = MappingProxyType({}),
        *,
        far: float | None = None,
    ) -> None:
        if far is not None and not 0 < far < 1:
            raise RecipeError(f"far: must be above 0 and below 1, got {far:g}")
        pairs = dataset.pairs if isinstance(dataset, HasPairs) else None
        if not isinstance(pairs, Pairs):
            raise DataError("face-verification compares pairs of images; this split has none. Use split val or test")
        refuse_learned(dataset, info, "verified")
        self.pairs = pairs
        self.far = far
        self.notes = (*_outside_data(dataset, info, outside), *learned_elsewhere(dataset, learned), *_few(pairs))
        self.embeddings = PerImage(embedding)
        # What was computed from them, until others come.
        self._compared: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._values: dict[str, float] | None = None

    def reset(self) -> None:
        """Forgets every embedding."""
        self.embeddings.reset()
        self._compared = self._values = None

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds embeddings (D,); an image seen twice counts once."""
        self.embeddings.update(predictions, samples)
        self._compared = self._values = None

    def merge(self, other: FaceVerification) -> None:
        """Takes over the embeddings of another instance."""
        self.embeddings.merge(other.embeddings)
        self._compared = self._values = None

    def similarities(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosine of each pair, (P,) float64, NaN if an image has no embedding; whether both have, (P,)."""
        images = int(max(self.pairs.first.max(), self.pairs.second.max())) + 1
        vectors, row = unit_vectors(self.embeddings, images)
        first, second = row[self.pairs.first], row[self.pairs.second]
        present = (first >= 0) & (second >= 0)
        # Rounded, so that equal pairs of float32 embeddings are equal, in whatever row they stand.
        scores = np.einsum("pd,pd->p", vectors[first], vectors[second]).round(12)
        return np.where(present, scores, np.nan), present

    def compute(self) -> dict[str, float]:
        """The scores, and `missing_pairs`: how many were left out because an image could not be read.

        Raises:
            DataError: No pair is complete, or an embedding is not finite.
        """
        return dict(self._scores())

    def thresholds(self) -> Thresholds:
        """Those that suit these pairs, as `compute` has them."""
        scores, same, _ = self._complete()
        found = {name: self._scores()[f"threshold@{name}"] for name in (ACCURACY, *map(far_name, self._rates))}
        values = {name: value for name, value in found.items() if not math.isnan(value)}
        rates = {name: decisions(scores, same, value)["far"] for name, value in values.items() if not same.all()}
        data = f"{same.sum()} pairs of one person and {(~same).sum()} of two"
        return Thresholds(ACCURACY if self.far is None else far_name(self.far), values, data, rates)

    def scores_at(self, threshold: float) -> dict[str, float]:
        """`threshold@kept`, and what it does with these pairs: `accuracy@kept`, `far@kept` and `frr@kept`.

        Without the rate of a sort of which there is no pair.
        """
        scores, same, _ = self._complete()
        done = {f"{name}@kept": value for name, value in decisions(scores, same, threshold).items()}
        return {"threshold@kept": threshold, **{name: value for name, value in done.items() if not math.isnan(value)}}

    def gaps(self) -> dict[str, str]:
        """Why values are NaN: pairs are of one sort, or too few for a rate."""
        _, same, fold = self._complete()
        missing = [name for name, value in self._scores().items() if math.isnan(value)]
        if same.all() or not same.any():
            return dict.fromkeys(missing, f"every pair is of {'one person' if same.all() else 'two people'}")
        # A threshold is n/a where it would be the same for all pairs.
        names = (ACCURACY, *map(far_name, self._rates))
        reasons = {f"threshold@{name}": "no threshold tells these pairs apart" for name in names}
        different = int((~same).sum())
        for rate in self._rates:
            if different * rate < 1 - 1e-9:
                why = f"takes {round(1 / rate)} pairs of two people, and there are {different}"
                reasons |= {f"{what}@{far_name(rate)}": why for what in ("tar", "threshold")}
        if len(np.unique(fold)) < 2:
            one_fold = "a threshold is chosen on other folds, and all pairs are in one"
            reasons |= dict.fromkeys(("accuracy", "accuracy_se"), one_fold)
        return {name: reasons[name] for name in missing}

    def details(self) -> Sequence[Curves]:
        """The curve `roc`."""
        false_rates, true_rates = roc(*self._complete()[:2])
        lines = {"pairs": (false_rates.tolist(), true_rates.tolist())}
        return [Curves("roc", "false accept rate", "true accept rate", lines)]

    @property
    def _rates(self) -> tuple[float, ...]:
        return FALSE_ACCEPT_RATES if self.far in (None, *FALSE_ACCEPT_RATES) else (*FALSE_ACCEPT_RATES, self.far)

    def _scores(self) -> dict[str, float]:
        """What `compute` gives, computed once."""
        if self._values is None:
            scores, same, fold = self._complete()
            chosen = {f"threshold@{name}": value for name, value in self._thresholds().items()}
            missing = {"missing_pairs": len(self.pairs) - len(scores)}
            self._values = verification_scores(scores, same, fold) | chosen | missing
        return self._values

    def _thresholds(self) -> dict[str, float]:
        """By what they are chosen for; NaN where the pairs cannot tell, or a threshold would tell no pairs apart."""
        scores, same, _ = self._complete()
        found = {ACCURACY: best_threshold(scores, same)}
        found |= {far_name(rate): threshold_at(scores, same, rate) for rate in self._rates}
        return {name: value if math.isfinite(value) else math.nan for name, value in found.items()}

    def _complete(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores of the pairs whose images both have an embedding, whether they are the same, and their folds."""
        if self._compared is None:
            scores, present = self.similarities()
            if not present.any():
                raise DataError(f"none of the {len(self.pairs)} pairs has both its images embedded; nothing to score")
            self._compared = scores[present], self.pairs.same[present], self.pairs.fold[present]
        return self._compared


def _few(pairs: Pairs) -> tuple[str, ...]:
    """That a score of so few pairs says little."""
    if len(pairs) >= _FEW:
        return ()
    return (f"{len(pairs)} pairs: each of them is {1 / max(1, len(pairs)):.1%} of the accuracy",)


def _outside_data(dataset: object, info: DataInfo | None, outside: Sequence[str]) -> tuple[str, ...]:
    """For View 2 of LFW, the category that a result must be reported under (UM-CS-2014-003)."""
    if not isinstance(dataset, FollowsProtocol) or dataset.protocol != VIEW_2:
        return ()
    strangers = len(set(info.classes) - set(dataset.photographed)) if info else 0
    sources = [f"{strangers} people of other data"] if strangers else []
    sources += outside
    if not sources:
        return (f"{VIEW_2}: Unrestricted, No Outside Data (UM-CS-2014-003)",)
    kind = "Label-Free" if set(sources) == {OUTSIDE} else "Labeled"
    return (f"{VIEW_2}: Unrestricted, {kind} Outside Data (UM-CS-2014-003): learned from {', '.join(sources)}",)
