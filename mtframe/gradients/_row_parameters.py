"""Parameters that stand in for shared ones during a step and keep the gradients of the tasks apart.

A stand-in holds the parameter's value and, for each task, a tensor of that value which collects the task's gradient.
Whatever is computed from stand-ins alone (a reshaped layer scale, standardised weights, a looked-up table) is one
again. Where a stand-in meets the images' rows, each task's rows are computed with that task's tensor: by
`run_per_task` for the layers that cost, by slicing, computing and concatenating for everything else. Both do
the arithmetic of the plain operation, once.
"""

# Shapes: B rows of all tasks in one pass.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from mtframe.model import current_rows

from ._row_layers import BatchNorm, Convolution, GroupNorm, Layer, LayerNorm, Linear, run_per_task


class Unattributable(Exception):
    """A use of shared parameters whose gradient cannot be told apart by rows; the message says which use."""


class Attribution:
    """What the stand-ins of one step have in common.

    Args:
        tasks: Tasks with images of their own; a stand-in has a tensor for each.
        fixed: Addresses of memory that holds no images: buffers, frozen parameters.
        poisoned: In a trial run, the task whose images are NaN: rows are then checked to be of the task they count as.
    """

    def __init__(self, tasks: Sequence[str], fixed: frozenset[int], poisoned: str | None = None) -> None:
        self.slots = {task: slot for slot, task in enumerate(tasks)}
        self.fixed = fixed
        self.poisoned = poisoned
        # Whether a backward pass goes through statistics to the rows of all tasks, as the derivative does.
        self.through_all_rows = False

    def holds_rows(self, value: Any, counts: dict[str, int]) -> bool:
        """Whether an argument is made of images: of floats, with rows for each image, and not the model's own."""
        total = sum(counts.values())
        return (
            isinstance(value, Tensor)
            and not isinstance(value, StandIn)
            and value.is_floating_point()
            and value.dim() > 0
            and len(value) > 0
            and len(value) % total == 0
            and value.untyped_storage().data_ptr() not in self.fixed
        )

    def sizes(self, value: Tensor, counts: dict[str, int]) -> list[int]:
        """Rows of each task in `value`, which may hold several an image."""
        each = len(value) // sum(counts.values())
        return [each * count for count in counts.values()]

    def check(self, func: Any, arguments: Sequence[Any], counts: dict[str, int]) -> None:
        """In a trial run, raises Unattributable unless the poison is in all rows of its task, and nowhere else."""
        if self.poisoned is None or self.poisoned not in counts:
            return
        for value in arguments:
            if not isinstance(value, Tensor) or isinstance(value, StandIn) or not value.is_floating_point():
                continue
            if not self.holds_rows(value, counts):
                if value.isnan().any():
                    raise Unattributable(f"{_name(func)} gets images that are not the first axis of {_shape(value)}")
                continue
            for task, part in zip(counts, value.split(self.sizes(value, counts)), strict=True):
                bad = part.flatten(1).isnan().any(1) if part.dim() > 1 else part.isnan()
                if not (bad.all() if task == self.poisoned else not bad.any()):
                    raise Unattributable(f"{_name(func)} gets {_shape(value)} whose rows are not those of the images")


class StandIn(Tensor):
    """A tensor whose gradient is collected per task (see the module).

    Attributes:
        value: What it holds, as a plain tensor without a gradient.
        leaves: A tensor per task, all of that value.
        attribution: The step's.
        origin: Name of a parameter that it comes from.
        expanded: Whether it has a row for each of the images' (a class token), all the same to begin with.
    """

    value: Tensor
    leaves: list[Tensor]
    attribution: Attribution
    origin: str
    expanded: bool

    @classmethod
    def of(cls, leaves: Sequence[Tensor], attribution: Attribution, origin: str, expanded: bool = False) -> StandIn:
        """One for tensors of the same value."""
        value = leaves[0].detach()
        self: StandIn = torch.Tensor._make_subclass(cls, value)
        self.value = value
        self.leaves, self.attribution, self.origin, self.expanded = list(leaves), attribution, origin, expanded
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if getattr(func, "__name__", "") == "__get__":
                value = func(*args)
                if not isinstance(value, Tensor):
                    return value
            output = _layer(func, args, kwargs)
            return _compute(func, args, kwargs) if output is None else output


def _layer(func: Any, args: Any, kwargs: Any) -> Any:
    """The output of a layer that has a backward pass of its own, None of anything else."""
    layer, counts = _LAYERS.get(func), current_rows()
    if layer is None or counts is None:
        return None
    # The tensors of these functions are arguments themselves; searching lists within them would take time.
    values = [*args, *kwargs.values()]
    first = next(value for value in values if isinstance(value, StandIn))
    try:
        first.attribution.check(func, values, counts)
        return layer(first.attribution, counts, *args, **kwargs)
    except Unattributable as error:
        raise Unattributable(f"{first.origin}: {error}") from None


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    """A stand-in of what only parameters go into, and rows of what rows go into."""
    flat, spec = tree_flatten((args, kwargs))
    first = next(value for value in flat if isinstance(value, StandIn))
    attribution, counts = first.attribution, current_rows()
    try:
        if counts is not None:
            attribution.check(func, flat, counts)
        if counts is None or not any(attribution.holds_rows(value, counts) for value in flat):
            return _alone(func, flat, spec, first)
        plain = _out_of_place(func)
        if plain is None:
            return _by_rows(func, flat, spec, attribution, counts)
        # Slices of a split are views that may not be written to.
        return args[0].copy_(_by_rows(plain, flat, spec, attribution, counts))
    except Unattributable as error:
        raise Unattributable(f"{first.origin}: {error}") from None


def _out_of_place(func: Any) -> Any:
    """`mul` for `mul_` and `__add__` for `__iadd__`; None for a function that writes to no argument."""
    name = _name(func)
    if name.startswith("__i") and name.endswith("__") and hasattr(Tensor, f"__{name[3:]}"):
        return getattr(Tensor, f"__{name[3:]}")
    return getattr(Tensor, name[:-1]) if name.endswith("_") and not name.endswith("__") else None


def _alone(func: Any, flat: list[Any], spec: Any, first: StandIn) -> Any:
    """What parameters alone give: the same for each task, again a stand-in."""
    results = []
    for slot in range(len(first.leaves)):
        args, kwargs = tree_unflatten([v.leaves[slot] if isinstance(v, StandIn) else v for v in flat], spec)
        results.append(func(*args, **kwargs))
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(results[0])):
            return results[0]

    stands = [value for value in flat if isinstance(value, StandIn)]
    total = sum((current_rows() or {}).values())

    def joined(*leaves: Any) -> Any:
        if not isinstance(leaves[0], Tensor):
            return leaves[0]
        # Rows that an operation before made, or that this one makes of one row.
        rows = total > 0 and leaves[0].dim() > 0 and len(leaves[0]) % total == 0
        expanded = rows and (any(s.expanded for s in stands) or func in _EXPANDING)
        return StandIn.of(leaves, first.attribution, first.origin, expanded)

    return tree_map(joined, *results)


def _by_rows(func: Any, flat: list[Any], spec: Any, attribution: Attribution, counts: dict[str, int]) -> Any:
    """Each task's rows with its tensor, one after the other again."""

    def parts_of(value: Any) -> Any:
        """What each task of the pass gets of an argument."""
        if isinstance(value, StandIn):
            mine = [value.leaves[attribution.slots[task]] for task in counts]
            if not value.expanded:
                return mine
            return [leaf.split(attribution.sizes(leaf, counts))[i] for i, leaf in enumerate(mine)]
        return value.split(attribution.sizes(value, counts)) if attribution.holds_rows(value, counts) else None

    parts = [parts_of(value) for value in flat]
    results = []
    for i in range(len(counts)):
        mine = [value if part is None else part[i] for value, part in zip(flat, parts, strict=True)]
        args, kwargs = tree_unflatten(mine, spec)
        results.append(func(*args, **kwargs))
    return tree_map(lambda *parts: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0], *results)


def _run(attribution: Attribution, counts: dict[str, int], layer: Layer, x: Any, weight: Any, bias: Any,
         cast: bool = False) -> Tensor | None:  # fmt: skip
    """None where the layer is not one of rows with weights of the model."""
    if not attribution.holds_rows(x, counts):
        return None
    if any(isinstance(w, Tensor) and not isinstance(w, StandIn) and w.requires_grad for w in (weight, bias)):
        return None
    slots = [attribution.slots[task] for task in counts]
    leaves = [[w.leaves[slot] for slot in slots] if isinstance(w, StandIn) else [] for w in (weight, bias)]
    weight, bias = (w.value if isinstance(w, StandIn) else w for w in (weight, bias))
    if cast and torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x = x.to(dtype)
        weight, bias = (None if w is None else w.to(dtype) for w in (weight, bias))
    return run_per_task(layer, attribution.sizes(x, counts), x, weight, bias, *leaves)


def _conv2d(attribution: Attribution, counts: dict[str, int], input: Any, weight: Any, bias: Any = None,
            stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor | None:  # fmt: skip
    if isinstance(padding, str) or input.dim() != 4:
        return None
    layer = Convolution(stride, padding, dilation, groups)
    return _run(attribution, counts, layer, input, weight, bias, cast=True)


def _linear(attribution: Attribution, counts: dict[str, int], input: Any, weight: Any, bias: Any = None) -> Any:
    return _run(attribution, counts, Linear(), input, weight, bias, cast=True) if input.dim() > 1 else None


def _batch_norm(attribution: Attribution, counts: dict[str, int], input: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(input, StandIn):
        # Weights that are standardised.
        return None
    output = joint_norm(attribution, counts, input, *args, **kwargs)
    if output is None:
        raise Unattributable(f"batch_norm gets {_shape(input)}, of which the images are not the first axis")
    return output


def joint_norm(
    attribution: Attribution, counts: dict[str, int], input: Any, running_mean: Any, running_var: Any,
    weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    *rest: Any,
) -> Tensor | None:  # fmt: skip
    """F.batch_norm of the rows of all tasks; None of anything else than rows."""
    layer = BatchNorm(running_mean, running_var, training, momentum, eps, lambda: attribution.through_all_rows)
    return _run(attribution, counts, layer, input, weight, bias)


def _layer_norm(attribution: Attribution, counts: dict[str, int], input: Any, normalized_shape: Any,
                weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any) -> Tensor | None:  # fmt: skip
    if input.dim() == len(normalized_shape) or _lifted(input):
        return None
    return _run(attribution, counts, LayerNorm(tuple(normalized_shape), eps), input, weight, bias)


def _group_norm(attribution: Attribution, counts: dict[str, int], input: Any, num_groups: int,
                weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any) -> Tensor | None:  # fmt: skip
    return None if _lifted(input) else _run(attribution, counts, GroupNorm(num_groups, eps), input, weight, bias)


def _lifted(x: Tensor) -> bool:
    """Whether autocast would compute a norm in another precision: on accelerators it does."""
    return x.device.type != "cpu" and torch.is_autocast_enabled(x.device.type)


_LAYERS: dict[Any, Callable[..., Tensor | None]] = {
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
}


# Of one row, these make as many as there are images.
_EXPANDING = (Tensor.expand, Tensor.expand_as, Tensor.repeat, torch.broadcast_to, Tensor.broadcast_to)


def check_plain(maps: Mapping[str, Sequence[Tensor]]) -> None:
    """Raises Unattributable if a sharing scheme gives stand-ins for maps."""
    for stand in (m for of_task in maps.values() for m in of_task if isinstance(m, StandIn)):
        raise Unattributable(
            f"{stand.origin}: images meet it where the sharing scheme does not say whose rows they are"
        )


def _name(func: Any) -> str:
    return getattr(func, "__name__", str(func))


def _shape(value: Tensor) -> str:
    return f"a tensor of shape {tuple(value.shape)}"
