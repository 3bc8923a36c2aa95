"""Tasks that look at one source's images: where their labels come from, and how these follow the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtframe.errors import BadImageError, DataError
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

    def labels(self, samples: Sequence[Sample]) -> tuple[list[Mapping[str, Tensor]], list[str]]:
        """The label of each sample, and what is wrong with those that cannot be read, of which nothing is known.

        The pictures stay: other tasks may know something of them.
        """
        if self.dataset is None:
            return [sample.target for sample in samples], []
        labels, unread = list[Mapping[str, Tensor]](), dict[str, None]()
        for sample in samples:
            try:
                labels.append(self.dataset.target_of(sample.id, sample.size))
            except DataError as error:
                labels.append(self.target.unknown())
                unread[str(error)] = None
        return labels, list(unread)

    def placed(self, labels: Sequence[Mapping[str, Tensor]], inputs: Inputs) -> list[dict[str, Tensor]]:
        """The label of each input that a transform has made of samples with these labels."""
        return [
            self.target.placed([(labels[placement.sample], placement) for placement in placements])
            for placements in inputs.placements
        ]

    def collated(self, labels: Sequence[Mapping[str, Tensor]], inputs: Inputs) -> dict[str, Tensor] | None:
        """The labels of the inputs as losses get them; None where nothing is known of any.

        A task that knows nothing of a batch has a loss of 0, which a balancer would take for that of a task at its
        optimum: MGDA would stop what is shared, uncertainty weighting let the task's weight grow without end.
        """
        targets = self.target.collate(self.placed(labels, inputs))
        return targets if self.target.known(targets).any() else None


def exact_inputs(transform: Transform, samples: Sequence[Sample]) -> Inputs:
    """Calls a transform that does not augment, and so draws nothing.

    No generator is seeded, since torch's is the whole process's: a thread that predicts leaves one that trains alone.
    """
    _check_images(samples)
    return transform(samples, np.random.default_rng(0))


def make_inputs(transform: Transform, samples: Sequence[Sample], rng: np.random.Generator) -> Inputs:
    """Calls a transform with both generators seeded, leaving torch's global one as it was."""
    _check_images(samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        return transform(samples, rng)


def _check_images(samples: Sequence[Sample]) -> None:
    """Raises DataError for what a transform would take for another picture, all black or in wrong colours."""
    for sample in samples:
        image = sample.image
        if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
            form = (
                f"{tuple(image.shape)} {image.dtype}"
                if isinstance(image, Tensor | np.ndarray)
                else type(image).__name__
            )
            raise DataError(
                f"{sample.id or f'sample {sample.index}'}: expected its data set to give an image that is a (3, H, W) "
                f"uint8 tensor, RGB, got {form}; mtframe.data.to_rgb makes one of an array, a tensor or a Pillow image"
            )


def fitting(
    samples: Sequence[Sample], inputs_of_one: Callable[[Sequence[Sample]], Inputs]
) -> tuple[list[Sample], list[str]]:
    """The samples that a transform can make something of, and what it says of the others (no face on it).

    Args:
        samples: Some samples.
        inputs_of_one: Calls the transform with one of them.
    """
    fit, unfit = list[Sample](), list[str]()
    for sample in samples:
        try:
            inputs_of_one([sample])
        except BadImageError as error:
            unfit.append(str(error))
        else:
            fit.append(sample)
    return fit, unfit
