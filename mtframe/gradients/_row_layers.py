"""Layers whose backward pass takes the weights' gradient once per task, each from that task's rows.

The input's gradient is taken once for all rows, as ever, so nothing is computed twice, and BatchNorm's statistics are
those of the joint pass. In place of a weight these layers take one tensor per task, all of one value; each gets the
gradient of its rows.
"""

# Shapes: B rows of all tasks, C channels, G groups, H height, W width, D features in, O features out.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.modules.utils import _pair

aten = torch.ops.aten
Gradients = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a layer computed with: its input (B, ...), its weights, and what else it keeps for the backward pass."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    more: tuple[Tensor, ...]


class Layer(Protocol):
    """The mathematics of one layer, in its two halves."""

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output, and what else than the arguments to keep."""
        ...

    def input_gradient(self, dy: Tensor, kept: Kept) -> Tensor:
        """That of all rows."""
        ...

    def weight_gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool]) -> Gradients:
        """Weight's and bias's from these rows; None or anything where not wanted."""
        ...


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
        dx = ctx.layer.input_gradient(dy, kept) if ctx.needs_input_grad[3] else None
        pairs, first = [], 0
        for count in ctx.counts:
            pairs.append(ctx.layer.weight_gradients(dy, kept, slice(first, first := first + count), ctx.wanted))
        found = [pair[i] for i in (0, 1) if ctx.wanted[i] for pair in pairs]
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
class Convolution:
    """Of (B, C, H, W); strides and so on as torch.conv2d takes them."""

    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As torch.conv2d."""
        return torch.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups), ()

    def input_gradient(self, dy: Tensor, kept: Kept) -> Tensor:
        """(B, C, H, W)."""
        return self._backward(dy, kept.x, kept.weight, [True, False, False])[0]

    def weight_gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool]) -> Gradients:
        """(O, C / groups, h, w) and (O,)."""
        return self._backward(dy[rows], kept.x[rows], kept.weight, [False, *wanted])[1:]

    def _backward(self, dy: Tensor, x: Tensor, weight: Any, mask: list[bool]) -> Any:
        stride, padding, dilation = _pair(self.stride), _pair(self.padding), _pair(self.dilation)
        return aten.convolution_backward(
            dy, x, weight, [len(weight)], stride, padding, dilation, False, [0, 0], self.groups, mask
        )


@dataclass(frozen=True, slots=True)
class Linear:
    """(B, ..., D) to (B, ..., O)."""

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.linear."""
        return torch.nn.functional.linear(x, weight, bias), ()

    def input_gradient(self, dy: Tensor, kept: Kept) -> Tensor:
        """(B, ..., D)."""
        assert kept.weight is not None
        return dy @ kept.weight

    def weight_gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool]) -> Gradients:
        """(O, D) and (O,)."""
        flat = dy[rows].flatten(0, -2)
        return (flat.T @ kept.x[rows].flatten(0, -2) if wanted[0] else None, flat.sum(0) if wanted[1] else None)


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """(B, C, ...), normalised by the statistics of all rows (`training`), or the running ones."""

    running_mean: Tensor | None
    running_var: Tensor | None
    training: bool
    momentum: float
    eps: float

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.batch_norm; updates the running statistics once."""
        y, mean, invstd = torch.native_batch_norm(
            x, weight, bias, self.running_mean, self.running_var, self.training, self.momentum, self.eps
        )
        return y, (mean, invstd)

    def input_gradient(self, dy: Tensor, kept: Kept) -> Tensor:
        """Through the joint statistics: rows of one task get gradient from those of another."""
        return self._backward(dy, kept, slice(None), [True, False, False])[0]

    def weight_gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool]) -> Gradients:
        """Twice (C,)."""
        # Sums over these rows; what they are normalised by was kept, and is the mean and deviation of all.
        return self._backward(dy, kept, rows, [False, *wanted])[1:]

    def _backward(self, dy: Tensor, kept: Kept, rows: slice, mask: list[bool]) -> Any:
        return aten.native_batch_norm_backward(
            dy[rows], kept.x[rows], kept.weight, self.running_mean, self.running_var, *kept.more, self.training,
            self.eps, mask,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(B, ..., *shape), normalised over the axes of `shape`."""

    shape: tuple[int, ...]
    eps: float

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.layer_norm."""
        y, mean, rstd = torch.native_layer_norm(x, self.shape, weight, bias, self.eps)
        return y, (mean, rstd)

    def input_gradient(self, dy: Tensor, kept: Kept) -> Tensor:
        """(B, ...)."""
        return self._backward(dy, kept, slice(None), [True, False, False])[0]

    def weight_gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool]) -> Gradients:
        """Twice `shape`."""
        return self._backward(dy, kept, rows, [False, *wanted])[1:]

    def _backward(self, dy: Tensor, kept: Kept, rows: slice, mask: list[bool]) -> Any:
        mean, rstd = (part[rows] for part in kept.more)
        return aten.native_layer_norm_backward(
            dy[rows].contiguous(), kept.x[rows].contiguous(), self.shape, mean, rstd, kept.weight, kept.bias, mask
        )


@dataclass(frozen=True, slots=True)
class GroupNorm:
    """(B, C, ...), each image normalised over groups of channels."""

    groups: int
    eps: float

    def run(self, x: Tensor, weight: Any, bias: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As F.group_norm."""
        x = _dense(x)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, *self._sizes(x), self.groups, self.eps)
        return y, (mean, rstd)

    def input_gradient(self, dy: Tensor, kept: Kept) -> Tensor:
        """(B, C, ...)."""
        return self._backward(dy, kept, slice(None), [True, False, False])[0]

    def weight_gradients(self, dy: Tensor, kept: Kept, rows: slice, wanted: tuple[bool, bool]) -> Gradients:
        """Twice (C,)."""
        return self._backward(dy, kept, rows, [False, *wanted])[1:]

    def _backward(self, dy: Tensor, kept: Kept, rows: slice, mask: list[bool]) -> Any:
        x = _dense(kept.x[rows])
        dy = dy[rows].contiguous(memory_format=_format(x))
        mean, rstd = (part[rows] for part in kept.more)
        return aten.native_group_norm_backward(dy, x, mean, rstd, kept.weight, *self._sizes(x), self.groups, mask)

    @staticmethod
    def _sizes(x: Tensor) -> tuple[int, int, int]:
        return len(x), x.shape[1], math.prod(x.shape[2:])


def _format(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_format(x))
