"""Balancers that take the logarithm of the losses, so that a loss's unit does not matter."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ._options import checked
from ._terms import add, logarithm


class LogSum:
    """The sum of the losses' logarithms: each task weighs 1 / L_t, whatever its loss's unit.

    sum_t log(L_t + eps) (the scale-invariant loss; arXiv:2308.12029, sec. 3.1, which shows that it is IMTL-L with the
    scales at their optimum). Losses must not be negative: the logarithm is NaN then, which stops the training.

    Args:
        eps: Added to each loss, so that one of 0 has a logarithm.

    Raises:
        RecipeError: `eps` is not above 0, or not finite.
    """

    def __init__(self, *, eps: float = 1e-8) -> None:
        self.eps = checked("eps", eps, eps > 0, "above 0")

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar."""
        return add(logarithm(loss, self.eps) for loss in losses.values())


class GeometricMean:
    """The geometric mean of the losses (GLS, arXiv:1904.08492): (prod_t L_t)^(1/T), with L_t + eps for L_t.

    Each task weighs 1 / L_t times the mean itself over T: large steps while losses are large. Losses must not be
    negative: the mean is NaN then, which stops the training. Taken of the T tasks that train in a step.

    Args:
        eps: Added to each loss, so that one of 0 has a logarithm.

    Raises:
        RecipeError: `eps` is not above 0, or not finite.
    """

    def __init__(self, *, eps: float = 1e-8) -> None:
        self.eps = checked("eps", eps, eps > 0, "above 0")

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Scalars by task to one scalar."""
        # By logarithms: a product of many losses over- or underflows in float32.
        return torch.exp(add(logarithm(loss, self.eps) for loss in losses.values()) / len(losses))
