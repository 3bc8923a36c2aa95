"""Scores of predictions over arrays: calibration, average precision, F1, errors of numbers."""

# Shapes: N images, C classes or numbers, M bins.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often predictions are right, by how sure they are; only bins that hold any.

    Attributes:
        confidence, accuracy: (M,) means.
        count: (M,) predictions.
    """

    confidence: Floats
    accuracy: Floats
    count: Floats

    @property
    def error(self) -> float:
        """Expected calibration error (arXiv:1706.04599, eq. 3)."""
        return float((self.count * np.abs(self.accuracy - self.confidence)).sum() / self.count.sum())


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> Reliability:
    """Bins predictions by confidence: equal widths, ((m - 1) / M, m / M].

    Args:
        confidence: (N,) probability of the predicted class.
        right: (N,) whether it is the true one.
        bins: M.
    """
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)
    count, sure, hits = (np.bincount(place, weights, bins) for weights in (None, confidence, right.astype(float)))
    used = count > 0
    return Reliability(sure[used] / count[used], hits[used] / count[used], count[used].astype(float))


def average_precision(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Σ (R_n - R_{n-1}) P_n over falling thresholds; equal scores are one threshold. NaN without a positive.

    Args:
        scores: (N,).
        positive: (N,).
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(positive[order])[last]
    precision, recall = hits / (last + 1), hits / positive.sum()
    return float((np.diff(recall, prepend=0) * precision).sum())


def f1(predicted: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN); 0 where there are neither positives nor predictions."""
    both = 2 * int((predicted & positive).sum())
    return both / max(1, int(predicted.sum() + positive.sum()))


def r_squared(predicted: Floats, true: Floats) -> float:
    """Coefficient of determination, 1 - Σ error² / Σ deviation²; NaN where the true numbers do not differ.

    Args:
        predicted: (N,).
        true: (N,).
    """
    deviation = np.square(true - true.mean()).sum() if len(true) else 0.0
    return float(1 - np.square(predicted - true).sum() / deviation) if deviation > 0 else float("nan")
