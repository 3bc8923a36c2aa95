"""The confusion matrix of detections: which classes are taken for which, or for background."""

# Shapes: K classes.

from __future__ import annotations

import numpy as np

from .coco_matching import Matched, pair


def add_confusions(counts: np.ndarray, image: Matched, score_threshold: float) -> None:
    """Counts an image's objects by what they are and what they were taken for.

    Objects that a detection of their class has found, as AP pairs them, are on the diagonal. What is left pairs
    across classes, in the order of scores and by the highest IoU of 0.5 or more. A detection that is still left has
    found background, and an object was missed. Detections in crowds of their class do not count.

    Args:
        counts: (K + 1, K + 1) int, added to: a row each class, a column each prediction, and background as the last
            of both.
        image: Its detections and objects.
        score_threshold: Least score of detections that count.
    """
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
