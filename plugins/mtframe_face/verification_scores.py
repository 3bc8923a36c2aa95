"""Scores of verification: pure functions of pairs' similarities. No torch."""

# Shapes: P pairs, K distinct operating points.

from __future__ import annotations

import math

import numpy as np

FALSE_ACCEPT_RATES = (1e-1, 1e-2, 1e-3, 1e-4)


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold that decides most pairs rightly when `score >= threshold` means "the same person".

    Exact: every way to cut the sorted scores is tried, halfway between two neighbours that differ (so equal
    scores are never torn apart) and beyond both ends. Of several best cuts the middle one is taken.

    Args:
        scores: (P,) float, similarity; larger for the same person.
        same: (P,) bool.

    Returns:
        The threshold; -inf accepts every pair, inf none.
    """
    order = np.argsort(scores, kind="stable")
    scores, same = scores[order], same[order]
    # Right decisions if the first k pairs are rejected, k = 0..P.
    right = np.concatenate(([0], np.cumsum(~same))) + same.sum() - np.concatenate(([0], np.cumsum(same)))
    cuttable = np.concatenate(([True], scores[1:] > scores[:-1], [True]))
    cuts = np.flatnonzero(cuttable & (right == right[cuttable].max()))
    cut = cuts[len(cuts) // 2]
    if cut == 0:
        return -math.inf
    if cut == len(scores):
        return math.inf
    return _between(float(scores[cut - 1]), float(scores[cut]))


def threshold_at(scores: np.ndarray, same: np.ndarray, rate: float) -> float:
    """The lowest threshold with which at most `rate` of the pairs of two people are taken for one person.

    It lies halfway between the lowest score that is accepted then and the next below, as `best_threshold` does, and
    accepts what `true_accept_rate` counts.

    Args:
        scores: (P,) float, similarity; larger for the same person.
        same: (P,) bool.
        rate: False accept rate, above 0 and below 1.

    Returns:
        NaN if `rate` is less than one of the pairs of two people, which cannot be told from zero; inf if even the most
        similar pairs are too many.
    """
    impostors = np.sort(scores[~same])[::-1]
    allowed = _allowed(len(impostors), rate)
    if allowed < 1:
        return math.nan
    # The most similar pair of two people that must be rejected.
    limit = impostors[min(allowed, len(impostors) - 1)]
    above = scores[scores > limit]
    return _between(float(limit), float(above.min())) if len(above) else math.inf


def decisions(scores: np.ndarray, same: np.ndarray, threshold: float) -> dict[str, float]:
    """What a threshold that was chosen elsewhere does with these pairs.

    Returns:
        `accuracy`, `far` (the part of the pairs of two people that is accepted) and `frr` (the part of those of one
        that is rejected); NaN without such pairs.
    """
    accepted = scores >= threshold
    return {
        "accuracy": float(np.mean(accepted == same)),
        "far": float(accepted[~same].mean()) if (~same).any() else math.nan,
        "frr": float(1 - accepted[same].mean()) if same.any() else math.nan,
    }


def far_name(rate: float) -> str:
    """A false accept rate as names of values have it: `far=1e-2`."""
    return rate_name("far", rate)


def rate_name(what: str, rate: float) -> str:
    """A rate as names of values have it: `fpir=1e-2`."""
    digits, exponent = f"{rate:.6e}".split("e")
    return f"{what}={digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _allowed(negatives: int, rate: float) -> int:
    """How many of the pairs of two people a false accept rate lets through."""
    # 1000 * 1e-3 may fall short of 1 by a rounding error.
    return math.floor(negatives * rate + 1e-9)


def _between(low: float, high: float) -> float:
    """A threshold that rejects `low` and accepts `high`, halfway between."""
    middle = low + (high - low) / 2
    # Between neighbouring floats there is no middle, and `low` itself must be rejected.
    return middle if middle > low else high


def fold_accuracies(scores: np.ndarray, same: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Accuracy in each fold with the threshold chosen on all the others (LFW, TR 07-49, section 4).

    Args:
        scores: (P,) float.
        same: (P,) bool.
        fold: (P,) int.

    Returns:
        One accuracy for each distinct fold, ascending; empty if there are fewer than two folds.
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        return np.empty(0)
    accuracies = []
    for held_out in folds:
        test = fold == held_out
        threshold = best_threshold(scores[~test], same[~test])
        accuracies.append(np.mean((scores[test] >= threshold) == same[test]))
    return np.array(accuracies)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, the sample's standard deviation over √n (LFW, TR 07-49, eqs. 1-3)."""
    if len(values) == 0:
        return math.nan, math.nan
    if len(values) == 1:
        return float(values[0]), math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def roc(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates, each (K,), from (0, 0) to (1, 1); one point for each distinct score.

    NaN where there is no pair of the kind.
    """
    order = np.argsort(-scores, kind="stable")
    scores, same = scores[order], same[order]
    ends = np.concatenate((np.flatnonzero(scores[1:] < scores[:-1]), [len(scores) - 1]))
    true = np.concatenate(([0], np.cumsum(same)[ends]))
    false = np.concatenate(([0], np.cumsum(~same)[ends]))
    with np.errstate(invalid="ignore"):
        return false / np.float64((~same).sum()), true / np.float64(same.sum())


def area_under(false_rates: np.ndarray, true_rates: np.ndarray) -> float:
    """Area under the ROC curve; equal scores count half, as straight lines between the points do."""
    return float(np.trapezoid(true_rates, false_rates))


def equal_error_rate(false_rates: np.ndarray, true_rates: np.ndarray) -> float:
    """The rate at which false accepts equal false rejects, on the straight line between operating points."""
    # FAR = 1 - TAR where FAR + TAR = 1, and along the curve that sum rises with every point.
    return float(np.interp(1.0, false_rates + true_rates, false_rates))


def true_accept_rate(false_rates: np.ndarray, true_rates: np.ndarray, at: float, negatives: int) -> float:
    """The largest true accept rate among the operating points whose false accept rate is at most `at`.

    Returns:
        NaN if `at` is less than one of the `negatives` pairs: such a rate cannot be told from zero.
    """
    if _allowed(negatives, at) < 1:
        return math.nan
    return float(true_rates[false_rates <= at * (1 + 1e-9)].max())


def verification_scores(scores: np.ndarray, same: np.ndarray, fold: np.ndarray) -> dict[str, float]:
    """All scores of a set of pairs.

    Args:
        scores: (P,) float, at least one pair; larger for the same person.
        same: (P,) bool.
        fold: (P,) int.

    Returns:
        `accuracy`, its standard error `accuracy_se`, `auc`, `eer` and `tar@far=1e-1` to `1e-4`; NaN where the
        pairs cannot tell.
    """
    accuracy, error = mean_and_error(fold_accuracies(scores, same, fold))
    if same.all() or not same.any():
        # Whoever accepts all, or none, is always right.
        accuracy, error = math.nan, math.nan
    false_rates, true_rates = roc(scores, same)
    values = {
        "accuracy": accuracy,
        "accuracy_se": error,
        "auc": area_under(false_rates, true_rates),
        "eer": equal_error_rate(false_rates, true_rates) if same.any() and not same.all() else math.nan,
    }
    for at in FALSE_ACCEPT_RATES:
        values[f"tar@{far_name(at)}"] = true_accept_rate(false_rates, true_rates, at, int((~same).sum()))
    return values
