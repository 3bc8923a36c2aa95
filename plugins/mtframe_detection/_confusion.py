"""Which classes are taken for which, or for nothing."""

# Shapes: K classes.

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ._matching import Matched, pair


def confusion(images: Iterable[Matched], num_classes: int, score_threshold: float) -> np.ndarray:
    """Counts objects by what they are and what they were taken for.

    Objects that a detection of their class has found, as AP pairs them, are on the diagonal. What is left pairs
    across classes, in the order of scores and by the highest IoU of 0.5 or more. A detection that is still left has
    found background, and an object was missed. Detections in crowds of their class do not count.

    Returns:
        (K + 1, K + 1) int64: a row each class, a column each prediction, and background as the last of both.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for image in images:
        # By falling score, so what counts comes first, and is paired as if there were nothing else.
        kept = int(np.count_nonzero(image.scores >= score_threshold))
        labels, match = image.labels[:kept], image.match[:kept].copy()
        left = np.flatnonzero((match < 0) & ~image.ignored[:kept])
        free = np.setdiff1d(np.arange(len(image.objects)), match)
        across = pair(image.ious[np.ix_(left, free)])
        match[left[across >= 0]] = free[across[across >= 0]]
        paired, nothing = match >= 0, left[across < 0]
        missed = np.setdiff1d(np.arange(len(image.objects)), match)
        np.add.at(counts, (image.objects[match[paired]], labels[paired]), 1)
        np.add.at(counts[-1], labels[nothing], 1)
        np.add.at(counts[:, -1], image.objects[missed], 1)
    return counts
