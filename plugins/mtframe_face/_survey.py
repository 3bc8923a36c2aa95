"""What the people of a whole split say: how many there are, and of how many images each."""

# Shapes: I images.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from mtframe.data import Sample
from mtframe.evaluation import Bars
from mtframe.kinds import Finding, Survey

# Images of a person, from and to.
_STEPS = ((1, 1), (2, 4), (5, 9), (10, 19), (20, 49), (50, None))

# Part of the people who may have one image without being odd.
_MUCH = 0.5


def condensed(sample: Sample) -> dict[str, np.ndarray]:
    """The person: by number, or where training does not know them by the folder that the image is in."""
    label = int(sample.target["label"])
    return {
        "person": np.array(str(label) if label >= 0 else str(PurePosixPath(sample.id).parent)),
        "label": np.array(label),
    }


def survey_people(condensed: Sequence[Mapping[str, np.ndarray]]) -> Survey:
    """How many people have how many images; see `mtframe.kinds.Surveys`."""
    images = Counter(str(one["person"]) for one in condensed)
    trained = any(int(one["label"]) >= 0 for one in condensed)
    if len(images) == 1 and not trained:
        # One folder, or one file, of everybody says nothing of who they are.
        return Survey("people", {}, 0, unknown=len(condensed))
    numbers = {
        _named(low, high): sum(low <= number and (high is None or number <= high) for number in images.values())
        for low, high in _STEPS
    }
    alone = sum(number == 1 for number in images.values())
    findings = []
    # In evaluation strangers may have one each.
    if trained and alone > _MUCH * len(images):
        text = f"{alone} of {len(images)} people have one image, which shows no variation of theirs"
        findings.append(Finding("people-of-one-image", "warning", text))
    return Survey(
        things="people",
        classes={},
        total=len(images),
        rows={f"  of {name}": number for name, number in numbers.items()},
        findings=tuple(findings),
        pictures=(Bars("images-of-a-person", "people", numbers),),
    )


def _named(low: int, high: int | None) -> str:
    if low == high:
        return "1 image"
    return f"{low} and more images" if high is None else f"{low} to {high} images"
