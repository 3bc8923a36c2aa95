"""Face identification: which of the enrolled people is this, if any?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from torch import Tensor

from mtframe.data import DataInfo, Sample
from mtframe.errors import DataError, RecipeError
from mtframe.evaluation import Curves
from mtframe.kinds import Dataset
from mtframe.metrics import GalleryThresholds, PerImage, SizedThreshold

from ._embeddings import embedding, learned_elsewhere, refuse_learned, unit_vectors
from .identification_scores import (
    FALSE_POSITIVE_RATES,
    Searches,
    cumulative_match,
    gallery_thresholds,
    identification_scores,
    open_set_curve,
    search,
    templates,
)
from .identities import HasRoles, NamesPeople, Roles
from .verification_scores import rate_name

# Ranks on the CMC curve, at most.
CMC_RANKS = 50

# Whose similarities tell the thresholds of galleries, at most.
_MOST_PROBES, _MOST_PEOPLE = 500, 1000

# With fewer enrolled people, chance is worth a note.
_FEW = 10


class FaceIdentification:
    """Finds people in a gallery, and rejects those who are not in it (1:N).

    The gallery holds one template a person, the normalised mean of the embeddings of the enrolled images. `rank-1` and
    `rank-5` are the parts of the probes of enrolled people whose person is the most similar, or among the first five
    (closed set). `tpir@fpir=1e-2` is the part of them whose person is the most similar *and* above the threshold at
    which one in a hundred unknown people is taken for somebody (open set: 1 - FNIR at rank 1); `threshold@...` is that
    cosine. n/a where a rate is less than one unknown probe, and `rank-1` with one person in the gallery, who is always
    the most similar.

    For `mtframe predict --gallery`, thresholds are kept with the weights that take at most `fpir` of strangers for
    somebody, by the number of people in the gallery: the more there are, the higher. `tpir@kept` and `fpir@kept` are
    what the one for a gallery of this size does with the probes that are evaluated.

    ISO/IEC 19795-1:2021; NISTIR 8271.

    Args:
        dataset: The evaluated split; has roles (`HasRoles`) and may name its people (`NamesPeople`), both in
            `mtframe_face.identities`.
        info: Of the training data; its `classes` are the people that the model learned from.
        learned: Names of people whom it has learned elsewhere, by where.
        fpir: Part of strangers whom a gallery may take for somebody, of which thresholds are kept; above 0 and below 1.

    Raises:
        RecipeError: `fpir` is out of its range.
        DataError: The split has no roles, no enrolled image or no probe of an enrolled person; or one of its people
            was trained on.
    """

    target: ClassVar[str] = "identity"
    asks: ClassVar[tuple[type, ...]] = (HasRoles, NamesPeople)
    primary = "rank-1"
    higher_is_better = True

    def __init__(
        self,
        dataset: Dataset,
        info: DataInfo | None = None,
        learned: Mapping[str, Collection[str]] = MappingProxyType({}),
        *,
        fpir: float = 0.01,
    ) -> None:
        if not 0 < fpir < 1:
            raise RecipeError(f"fpir: must be above 0 and below 1, got {fpir:g}")
        roles = dataset.roles if isinstance(dataset, HasRoles) else None
        if not isinstance(roles, Roles):
            raise DataError(
                "face-identification needs a gallery and probes; this split has none. Use split val or test of "
                "identity-folders or lfw"
            )
        _refuse_empty(roles)
        refuse_learned(dataset, info, "identified")
        self.roles = roles
        self.fpir = fpir
        self._elsewhere = learned_elsewhere(dataset, learned)
        self.embeddings = PerImage(embedding)
        # What came out of searching with them, until others come.
        self._found: Searches | None = None

    def reset(self) -> None:
        """Forgets every embedding."""
        self.embeddings.reset()
        self._found = None

    def update(self, predictions: Sequence[Mapping[str, Tensor]], samples: Sequence[Sample]) -> None:
        """Adds embeddings (D,); an image seen twice counts once."""
        self.embeddings.update(predictions, samples)
        self._found = None

    def merge(self, other: FaceIdentification) -> None:
        """Takes over the embeddings of another instance."""
        self.embeddings.merge(other.embeddings)
        self._found = None

    def searches(self) -> Searches:
        """What comes out of searching the gallery for every probe that could be read.

        Raises:
            DataError: No image of the gallery, or no probe, was embedded; or an embedding is not finite.
        """
        if self._found is None:
            self._found = self._search()
        return self._found

    def compute(self) -> dict[str, float]:
        """The scores, and numbers of `enrolled` people and of `known_probes` and `unknown_probes`.

        A person whose enrolled images could not be read counts as unknown.
        """
        searches = self.searches()
        known = int(searches.known.sum())
        counts = {"enrolled": searches.gallery, "known_probes": known, "unknown_probes": len(searches.rank) - known}
        return identification_scores(searches) | counts

    def gaps(self) -> dict[str, str]:
        """Why values are NaN: too few are enrolled, or too few are not."""
        searches = self.searches()
        unknown = int((~searches.known).sum())
        found = {}
        if searches.gallery < 2:
            found["rank-1"] = "one person is enrolled, and is always the most similar"
        if searches.gallery <= 5:
            found["rank-5"] = f"with {searches.gallery} enrolled the right one is always among five"
        for rate in FALSE_POSITIVE_RATES:
            name = rate_name("fpir", rate)
            why = f"takes {round(1 / rate)} probes of unknown people, and there are {unknown}"
            found |= {f"tpir@{name}": why, f"threshold@{name}": why} if unknown * rate < 1 - 1e-9 else {}
        if not searches.known.any():
            found |= dict.fromkeys(("rank-1", "rank-5"), "no probe is of an enrolled person")
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Whom the model may know from elsewhere, and that so few are enrolled that chance finds many."""
        people = len(np.unique(self.roles.identity[self.roles.gallery]))
        if not 2 <= people < _FEW:
            return self._elsewhere
        return (
            *self._elsewhere,
            f"{people} people are enrolled, so that chance alone gives a rank-1 of {1 / people:.2f}",
        )

    def details(self) -> Sequence[Curves]:
        """Curves `cmc` (closed set) and `tpir-fpir` (open set, where there are unknown probes)."""
        searches = self.searches()
        ranks = range(1, min(CMC_RANKS, searches.gallery) + 1)
        cmc = cumulative_match(searches, len(ranks)).tolist()
        curves = [Curves("cmc", "rank", "identification rate", {"known probes": (list(ranks), cmc)})]
        false, true = open_set_curve(searches)
        if len(false):
            lines = {"rank 1": (false.tolist(), true.tolist())}
            curves.append(Curves("tpir-fpir", "FPIR", "TPIR", lines))
        return curves

    def gallery_thresholds(self) -> GalleryThresholds:
        """Those that take at most a tenth, a hundredth and `fpir` of strangers for somebody, by the size of a gallery.

        Of this gallery's people, 1,000 at most, and 500 probes.
        """
        vectors, row, enrolled, probes = self._embedded()
        gallery, people = templates(vectors[row[enrolled]], self.roles.identity[enrolled])
        some, among = _spread(np.flatnonzero(probes), _MOST_PROBES), _spread(np.arange(len(people)), _MOST_PEOPLE)
        place = np.minimum(np.searchsorted(people[among], self.roles.identity[some]), len(among) - 1)
        own = np.where(people[among][place] == self.roles.identity[some], place, -1)
        similarities = (vectors[row[some]] @ gallery[among].T).round(12)
        values = {
            rate_name("fpir", rate): [SizedThreshold(size, value) for size, value in known]
            for rate in dict.fromkeys((*FALSE_POSITIVE_RATES, self.fpir))
            if (known := gallery_thresholds(similarities, own, rate))
        }
        return GalleryThresholds(rate_name("fpir", self.fpir), values, f"{len(some)} probes of {len(among)} people")

    def scores_with(self, kept: GalleryThresholds) -> dict[str, float]:
        """`threshold@kept-gallery`, and what it does here: `tpir@kept` and `fpir@kept`, where there are such probes."""
        searches = self.searches()
        threshold = kept.value(searches.gallery)
        if threshold is None:
            return {}
        found, known = searches.best >= threshold, searches.known
        values = {"threshold@kept-gallery": threshold}
        if known.any():
            values["tpir@kept"] = float((found & (searches.rank == 1))[known].mean())
        if not known.all():
            values["fpir@kept"] = float(found[~known].mean())
        return values

    def _embedded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors, the row of each image's or -1, and which images are enrolled and which are probes."""
        vectors, row = unit_vectors(self.embeddings, len(self.roles.identity))
        enrolled, probes = ((row >= 0) & role for role in (self.roles.gallery, ~self.roles.gallery))
        if not enrolled.any() or not probes.any():
            raise DataError(f"{enrolled.sum()} images of the gallery and {probes.sum()} probes were embedded; both "
                            "are needed to identify anybody")  # fmt: skip
        return vectors, row, enrolled, probes

    def _search(self) -> Searches:
        vectors, row, enrolled, probes = self._embedded()
        gallery, people = templates(vectors[row[enrolled]], self.roles.identity[enrolled])
        return search(vectors[row[probes]], self.roles.identity[probes], gallery, people)


def _spread(places: np.ndarray, most: int) -> np.ndarray:
    """So many of these at most, from all over them."""
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)]


def _refuse_empty(roles: Roles) -> None:
    """Raises DataError if nobody could be found, whatever the embeddings."""
    enrolled = np.unique(roles.identity[roles.gallery])
    if np.isin(roles.identity[~roles.gallery], enrolled).any():
        return
    _, images = np.unique(roles.identity, return_counts=True)
    raise DataError(
        f"face-identification needs enrolled people and other images of them; of the {len(images)} people in this "
        f"split {len(enrolled)} are enrolled, and no other image shows one of them. A person is enrolled with more "
        f"images than the data set's option 'gallery' says (one at least); here a person has {images.max(initial=0)} "
        "at most. Give people more images, or lower 'gallery', or 'unknown', the part of them that is left out"
    )
