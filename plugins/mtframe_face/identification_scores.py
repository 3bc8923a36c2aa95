"""Scores of identification: pure functions of similarities between probes and a gallery. No torch.

ISO/IEC 19795-1:2021, and the terms of NIST's FRTE 1:N report (NISTIR 8271).
"""

# Shapes: P probes, G people in the gallery, D numbers in an embedding.

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .verification_scores import rate_name

FALSE_POSITIVE_RATES = (1e-1, 1e-2)

# Similarities that differ by less are equal: embeddings are float32, but a sum in float64 depends on where in a matrix
# product it stands.
_EQUAL = 1e-12

# Galleries of which thresholds are told, and that of all people.
_SIZES = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700)

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


def gallery_thresholds(similarities: np.ndarray, own: np.ndarray, rate: float) -> list[tuple[int, float]]:
    """Thresholds with which at most `rate` of strangers are taken for one of a gallery, by the gallery's size.

    Every probe is a stranger to the people who are not its own. Over all galleries of N of these, the part of them in
    which none reaches a threshold that k of the G people reach is C(G - k, N) / C(G, N); FPIR is one minus its mean
    over the probes. So the thresholds of all smaller galleries come from one, without drawing any.

    Args:
        similarities: (P, G), of probes with people.
        own: (P,) which of the people a probe is of; -1 for none.
        rate: FPIR, above 0 and below 1.

    Returns:
        (size, threshold), both rising; a similarity of a threshold or more counts. Empty if `rate` is less than one
        probe, or there is nobody to compare with.
    """
    probes, people = similarities.shape
    if probes * rate < 1 - 1e-9:
        return []
    mated = own >= 0
    scores = np.array(similarities, dtype=np.float64)
    scores[mated, own[mated]] = -np.inf
    others = people - mated
    most = int(others.min())
    # log n!, for binomials of any size.
    factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, people + 1)))))
    cuts, found, low = np.unique(scores[np.isfinite(scores)]), list[tuple[int, float]](), 0
    for size in dict.fromkeys([*(size for size in _SIZES if size < most), most] if most else []):
        # The lowest cut that few enough strangers reach: more are stricter.
        high = len(cuts)
        while low < high:
            middle = (low + high) // 2
            left = others - (scores >= cuts[middle]).sum(axis=1)
            inside = np.maximum(left - size, 0)
            none = np.exp(factorial[left] - factorial[inside] - factorial[others] + factorial[others - size])
            if 1 - np.where(left >= size, none, 0).mean() <= rate + 1e-12:
                high = middle
            else:
                low = middle + 1
        if low == len(cuts):
            break
        if low > 0:
            found.append((size, float(cuts[low - 1] + (cuts[low] - cuts[low - 1]) / 2)))
    return found


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
        threshold, name = threshold_at(searches, rate), rate_name("fpir", rate)
        values[f"tpir@{name}"] = identified(searches, threshold)
        values[f"threshold@{name}"] = threshold
    return values
