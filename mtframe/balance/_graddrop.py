"""Gradients of one sign only, element by element."""

from __future__ import annotations

import torch
from torch import Tensor

from ._options import checked

# Shapes: T tasks, P shared parameters.


class GradDrop:
    """In each element only the gradients of one sign stay (gradient sign dropout, arXiv:2010.06808, alg. 1).

    Positive ones with the probability of the positive sign's purity, (1 + sum_t g_t / sum_t |g_t|) / 2 (eq. 1), else
    negative ones; what stays is summed. The paper drops gradients of a shared activation; here they are those of the
    shared parameters, which tasks with images of their own have in common.

    Args:
        leak: Part of each gradient that passes in any case.

    Raises:
        RecipeError: `leak` is not in 0..1.
    """

    def __init__(self, *, leak: float = 0.0) -> None:
        self.leak = checked("leak", leak, 0 <= leak <= 1, "0 to 1")

    def combine(self, gradients: Tensor, losses: Tensor) -> Tensor:
        """The update of the shared parameters.

        Args:
            gradients: (T, P) float.
            losses: (T,) float64.

        Returns:
            (P,) in the gradients' type and on their device.
        """
        sum_P, size_P = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])
        # Task by task, in two buffers of P: temporaries of T x P would double the memory of the step.
        for gradient_P in gradients:
            sum_P += gradient_P
            size_P += gradient_P.abs()
        # Sums of the positive and of the negative elements, by their sum and the sum of their sizes.
        positive_P, negative_P = (size_P + sum_P) / 2, (sum_P - size_P) / 2
        # u < p without its division by 0.
        chosen_P = torch.rand_like(size_P) * size_P < positive_P
        kept_P = torch.where(chosen_P, positive_P, negative_P)
        return torch.lerp(kept_P, sum_P, self.leak)
