"""Layers whose backward pass takes the weights' gradient once per task, each from that task's rows.

The input's gradient is taken once for all rows, as ever, so nothing is computed twice. In place of a weight these
layers take one tensor per task, all of one value; each gets the gradient of its rows.
"""

# Shapes: B rows of all tasks, C channels, G groups, H height, W width, D features in, O features out.

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.modules.utils import _pair

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Kept:
    """What a layer computed with: its input (B, ...), its weights, and what else it keeps for the backward pass."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    more: tuple[Tensor, ...]


class Layer(ABC):
    """The mathematics of one layer, in its two halves."""

    @abstractmethod
    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output, and what else than the arguments to keep."""

    @property
    def at_once(self) -> bool:
        """Whether the input's gradient is taken with the weights', task by task, and not for all rows at once."""
        return False

    @abstractmethod
    def gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool, bool]) -> Any:
        """Input's, weight's and bias's of these rows; None or anything where not wanted."""


class _PerTask(Function):
    """Runs a layer for rows of several tasks; `leaves` are the weights of the tasks, then their biases."""

    @staticmethod
    def forward(ctx: Any, layer: Layer, counts: list[int], wanted: tuple[bool, bool],
                x: Tensor, weight: Any, bias: Any, *leaves: Tensor) -> Tensor:  # fmt: skip
        output, more = layer.run(x, weight, bias)
        ctx.save_for_backward(x, weight, bias, *more)
        ctx.layer, ctx.counts, ctx.wanted = layer, counts, wanted
        ctx.dtypes = [leaf.dtype for leaf in leaves]
        return output

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, bias, *more = ctx.saved_tensors
        kept = Kept(x, weight, bias, tuple(more))
        ends = list(accumulate(ctx.counts, initial=0))
        tasks = [slice(first, end) for first, end in pairwise(ends)]
        layer, needed = ctx.layer, ctx.needs_input_grad[3]
        parts = [layer.gradients(dy, kept, rows, (needed and layer.at_once, *ctx.wanted)) for rows in tasks]
        dx = None
        if needed and layer.at_once:
            dx = torch.cat([part[0] for part in parts])
        elif needed:
            dx = layer.gradients(dy, kept, slice(None), (True, False, False))[0]
        found = [part[i] for i in (1, 2) if ctx.wanted[i - 1] for part in parts]
        gradients = [gradient.to(dtype) for gradient, dtype in zip(found, ctx.dtypes, strict=True)]
        return (None, None, None, dx, None, None, *gradients)


def run_per_task(
    layer: Layer, counts: Sequence[int], x: Tensor, weight: Tensor | None, bias: Tensor | None,
    weights: Sequence[Tensor], biases: Sequence[Tensor],
) -> Tensor:  # fmt: skip
    """The layer's output for all rows; its backward pass gives each task's tensors the gradient of that task's rows.

    Args:
        layer: What to compute.
        counts: Rows of each task, in order; together, B.
        x: Input (B, ...).
        weight: The weight's value, detached, or None.
        bias: The bias's, likewise.
        weights: One tensor per task, of that value; none where the weight is fixed or None.
        biases: Likewise.
    """
    wanted = bool(weights), bool(biases)
    return _PerTask.apply(layer, list(counts), wanted, x, weight, bias, *weights, *biases)


@dataclass(frozen=True, slots=True)
class Convolution(Layer):
    """A convolution of (B, C, H, W); strides and so on as torch.conv2d takes them."""

    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As torch.conv2d."""
        return torch.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups), ()

    def gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool, bool]) -> Any:
        """(B, C, H, W), (O, C / groups, h, w) and (O,)."""
        assert kept.weight is not None
        stride, padding, dilation = _pair(self.stride), _pair(self.padding), _pair(self.dilation)
        return aten.convolution_backward(
            dy[rows], kept.x[rows], kept.weight, [len(kept.weight)], stride, padding, dilation, False, [0, 0],
            self.groups, list(wanted),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Linear(Layer):
    """(B, ..., D) to (B, ..., O)."""

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.linear."""
        return torch.nn.functional.linear(x, weight, bias), ()

    def gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool, bool]) -> Any:
        """(B, ..., D), (O, D) and (O,)."""
        assert kept.weight is not None
        flat = dy[rows].flatten(0, -2)
        return (
            dy[rows] @ kept.weight if wanted[0] else None,
            flat.T @ kept.x[rows].flatten(0, -2) if wanted[1] else None,
            flat.sum(0) if wanted[2] else None,
        )


@dataclass(frozen=True, slots=True)
class BatchNorm(Layer):
    """(B, C, ...), normalised by the statistics of all rows (`training`), or the running ones.

    Backwards, the statistics of all rows respond to the rows of each task as if these were all there are: with x̂ the
    normalised input, k = γ / σ and means over the task's own rows, dx = k (dy - mean(dy) - x̂ mean(dy x̂)). So each task
    gets its own gradient of the weights, and no row depends on another task's loss. `through_all_rows` takes the
    statistics' response to all rows instead, which is the derivative of what was computed.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    training: bool
    momentum: float
    eps: float
    through_all_rows: Callable[[], bool]

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.batch_norm; updates the running statistics once."""
        y, mean, invstd = torch.native_batch_norm(
            x, weight, bias, self.running_mean, self.running_var, self.training, self.momentum, self.eps
        )
        return y, (mean, invstd)

    @property
    def at_once(self) -> bool:
        """Unless its derivative is wanted, which ties the tasks together."""
        return not self.through_all_rows()

    def gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool, bool]) -> Any:
        """(B, C, ...) and twice (C,)."""
        # Sums over these rows; what they are normalised by was kept, and is the mean and deviation of all.
        return aten.native_batch_norm_backward(
            dy[rows], kept.x[rows], kept.weight, self.running_mean, self.running_var, *kept.more, self.training,
            self.eps, list(wanted),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerNorm(Layer):
    """(B, ..., *shape), normalised over the axes of `shape`."""

    shape: tuple[int, ...]
    eps: float

    @property
    def at_once(self) -> bool:
        """Rows are apart: one pass over them gives all three."""
        return True

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.layer_norm."""
        y, mean, rstd = torch.native_layer_norm(x, self.shape, weight, bias, self.eps)
        return y, (mean, rstd)

    def gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool, bool]) -> Any:
        """(B, ...) and twice `shape`."""
        mean, rstd = (part[rows] for part in kept.more)
        return aten.native_layer_norm_backward(
            dy[rows].contiguous(), kept.x[rows].contiguous(), self.shape, mean, rstd, kept.weight, kept.bias,
            list(wanted),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class GroupNorm(Layer):
    """(B, C, ...), each image normalised over groups of channels."""

    groups: int
    eps: float

    @property
    def at_once(self) -> bool:
        """Rows are apart: one pass over them gives all three."""
        return True

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.group_norm."""
        x = _dense(x)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *self._sizes(x), self.groups, self.eps)
        return y, (mean, rstd)

    def gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool, bool]) -> Any:
        """(B, C, ...) and twice (C,)."""
        x = _dense(kept.x[rows])
        dy = dy[rows].contiguous(memory_format=_format(x))
        mean, rstd = (part[rows] for part in kept.more)
        return aten.native_group_norm_backward(
            dy, x, mean, rstd, kept.weight, *self._sizes(x), self.groups, list(wanted)
        )

    @staticmethod
    def _sizes(x: Tensor) -> tuple[int, int, int]:
        return len(x), x.shape[1], math.prod(x.shape[2:])


def _format(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_format(x))
