"""Scores of identification: pure functions of similarities between probes and a gallery. No torch.

ISO/IEC 19795-1:2021, and the terms of NIST's FRTE 1:N report (NISTIR 8271).
"""

# Shapes: P probes, G people in the gallery, D numbers in an embedding.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FALSE_POSITIVE_RATES = (1e-1, 1e-2)

# Similarities that differ by less are equal: embeddings are float32, but a sum in float64 depends on where in a matrix
# product it stands.
_EQUAL = 1e-12

# Probes whose similarities are computed at a time: those of all at once may not fit into memory.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Searches:
    """What comes out of searching a gallery for every probe.

    Attributes:
        rank: (P,) int64, the place of the probe's own person, from 1; 0 for an unknown person. Others who are equally
            similar come first, so that a model that says the same of all finds nobody.
        best: (P,) float, the similarity of the most similar person.
        gallery: Number of people in the gallery.
    """

    rank: np.ndarray
    best: np.ndarray
    gallery: int

    @property
    def known(self) -> np.ndarray:
        """(P,) bool, whether the probe's person is in the gallery (a mated search)."""
        return self.rank > 0


def templates(vectors: np.ndarray, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One unit vector a person, the mean of the person's unit vectors: (G, D), and who they are, (G,) ascending."""
    people, which = np.unique(identity, return_inverse=True)
    sums = np.zeros((len(people), vectors.shape[1]))
    np.add.at(sums, which, vectors)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), people


def search(probes: np.ndarray, identity: np.ndarray, gallery: np.ndarray, people: np.ndarray) -> Searches:
    """Searches the gallery for every probe.

    Args:
        probes: (P, D) unit vectors.
        identity: (P,) int, who they are.
        gallery: (G, D) unit vectors, a person each.
        people: (G,) int, who they are, ascending.
    """
    place = np.minimum(np.searchsorted(people, identity), len(people) - 1)
    known = people[place] == identity
    rank, best = np.zeros(len(probes), np.int64), np.empty(len(probes))
    for start in range(0, len(probes), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarities = probes[block] @ gallery.T
        own = np.take_along_axis(similarities, place[block, None], axis=1)
        rank[block] = np.where(known[block], (similarities >= own - _EQUAL).sum(1), 0)
        best[block] = similarities.max(1).round(12)
    return Searches(rank, best, len(people))


def cumulative_match(searches: Searches, ranks: int) -> np.ndarray:
    """CMC: the part of the known probes whose person is among the first 1, 2, ..., `ranks`; NaN without any."""
    known = searches.rank[searches.known]
    if not len(known):
        return np.full(ranks, math.nan)
    return np.cumsum(np.bincount(known, minlength=ranks + 1)[1 : ranks + 1]) / len(known)


def threshold_at(searches: Searches, rate: float) -> float:
    """The similarity that must be exceeded for a hit, so that at most `rate` of the unknown probes have one.

    Returns:
        NaN if `rate` is less than one of the unknown probes: such a rate cannot be told from zero.
    """
    unknown = np.sort(searches.best[~searches.known])[::-1]
    allowed = math.floor(len(unknown) * rate + 1e-9)
    if allowed < 1:
        return math.nan
    return float(unknown[allowed]) if allowed < len(unknown) else -math.inf


def identified(searches: Searches, threshold: float) -> float:
    """TPIR, the part of the known probes whose own person comes first and above the threshold (1 - FNIR, rank 1)."""
    known = searches.known
    if math.isnan(threshold) or not known.any():
        return math.nan
    return float(np.mean((searches.rank[known] == 1) & (searches.best[known] > threshold)))


def open_set_curve(searches: Searches) -> tuple[np.ndarray, np.ndarray]:
    """FPIR and TPIR at every threshold at which one of them changes, from the strictest on; empty without probes."""
    known = searches.known
    false = np.sort(searches.best[~known])
    hits = np.sort(searches.best[known & (searches.rank == 1)])
    if not len(false) or not known.any():
        return np.empty(0), np.empty(0)
    cuts = np.unique(np.concatenate((false, hits, [-np.inf])))[::-1]
    above = [len(scores) - np.searchsorted(scores, cuts, side="right") for scores in (false, hits)]
    return above[0] / len(false), above[1] / known.sum()


def identification_scores(searches: Searches) -> dict[str, float]:
    """All values: `rank-1`, `rank-5`, and `tpir@fpir=` and `threshold@fpir=` 1e-1 and 1e-2.

    NaN where the data cannot tell: rank 1 with a gallery of one, rank 5 with one of five or fewer, a rate below one
    unknown probe.
    """
    curve = cumulative_match(searches, 5)
    values = {
        "rank-1": float(curve[0]) if searches.gallery > 1 else math.nan,
        "rank-5": float(curve[4]) if searches.gallery > 5 else math.nan,
    }
    for rate in FALSE_POSITIVE_RATES:
        threshold, name = threshold_at(searches, rate), f"fpir=1e-{-round(math.log10(rate))}"
        values[f"tpir@{name}"] = identified(searches, threshold)
        values[f"threshold@{name}"] = threshold
    return values
