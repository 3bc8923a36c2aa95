"""Tasks that look at one source's images: where their labels come from, and how these follow the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtframe.errors import BadImageError
from mtframe.kinds import LabelsImages, Target, Transform

from ._placement import Inputs
from ._sample import Sample


@dataclass(frozen=True, slots=True)
class Viewer:
    """What a task that looks at some images knows of them.

    Attributes:
        target: Its kind of target, which moves its labels with the images.
        dataset: Where its labels come from, by the images' ids; None for the samples' own.
    """

    target: Target
    dataset: LabelsImages | None = None

    def placed(self, samples: Sequence[Sample], inputs: Inputs) -> list[dict[str, Tensor]]:
        """The label of each input that a transform has made of these samples."""
        labels = [self._label(sample) for sample in samples]
        return [
            self.target.placed([(labels[placement.sample], placement) for placement in placements])
            for placements in inputs.placements
        ]

    def collated(self, samples: Sequence[Sample], inputs: Inputs) -> dict[str, Tensor] | None:
        """The labels of the inputs as losses get them; None where nothing is known of any.

        A task that knows nothing of a batch has a loss of 0, which a balancer would take for that of a task at its
        optimum: MGDA would stop what is shared, uncertainty weighting let the task's weight grow without end.
        """
        targets = self.target.collate(self.placed(samples, inputs))
        return targets if self.target.known(targets).any() else None

    def _label(self, sample: Sample) -> Mapping[str, Tensor]:
        return sample.target if self.dataset is None else self.dataset.target_of(sample.id, sample.size)


def exact_inputs(transform: Transform, samples: Sequence[Sample]) -> Inputs:
    """Calls a transform that does not augment, and so draws nothing.

    No generator is seeded, since torch's is the whole process's: a thread that predicts leaves one that trains alone.
    """
    return transform(samples, np.random.default_rng(0))


def make_inputs(transform: Transform, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
    """Calls a transform with both generators seeded, leaving torch's global one as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        return transform(samples, rng)


def fitting(transform: Transform, samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """The samples that a transform can make something of, and what it says of the others (no face on it)."""
    fit, unfit = list[Sample](), list[str]()
    for sample in samples:
        try:
            make_inputs(transform, [sample], np.random.default_rng(0))
        except BadImageError as error:
            unfit.append(str(error))
        else:
            fit.append(sample)
    return fit, unfit
