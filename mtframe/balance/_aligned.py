"""AlignedMTL: gradients are made orthogonal and equally long before they are averaged."""

# Shapes: T tasks.

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


class AlignedMTL:
    """The mean of gradients made orthogonal and equally long with the least change (arXiv:2305.19000, alg. 1).

    w = B 1 / T, B = s V L^(-1/2) V' of G = V L V': the matrix of the gradients gets the condition number 1, all
    its singular values being s. Directions in which the gradients have no extent stay so.

    Args:
        scale: What s is: the smallest singular value (`min`, which the paper proves convergence for), their root mean
            square (`rmse`) or their `median`.
    """

    def __init__(self, *, scale: Literal["min", "median", "rmse"] = "min") -> None:
        self.scale = scale

    def weigh(self, gram: Tensor, losses: Tensor) -> Tensor:
        """(T, T) inner products of the gradients to their (T,) weights; NaN if a gradient is not finite."""
        if not gram.isfinite().all():
            return torch.full_like(losses, torch.nan)
        values_T, vectors_TT = torch.linalg.eigh(gram)
        kept_T = values_T > values_T[-1] * len(values_T) * torch.finfo(values_T.dtype).eps
        if not kept_T.any():
            return torch.full_like(losses, 1 / len(losses))
        values, vectors = values_T[kept_T], vectors_TT[:, kept_T]
        scales = {"min": values[0], "median": values.median(), "rmse": values.mean()}
        return vectors @ (vectors.mean(0) * (scales[self.scale] / values).sqrt())
