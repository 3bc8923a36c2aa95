"""Putting stand-ins in the place of a module's shared parameters for one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from mtframe.model import current_rows

from ._row_parameters import Attribution, StandIn, joint_norm


@contextmanager
def standing_in(
    module: nn.Module, parameters: Mapping[str, nn.Parameter], attribution: Attribution
) -> Iterator[dict[str, StandIn]]:
    """Within it, `module` computes with stand-ins of these parameters; yields them, by the same names.

    Each has a leaf per task, which shares the parameter's memory and collects a gradient of its own.
    """
    trained = attribution.poisoned is None
    stands = {
        name: StandIn.of([value.detach().requires_grad_(trained) for _ in attribution.slots], attribution, name)
        for name, value in parameters.items()
    }
    names = {value: name for name, value in parameters.items()}
    fixed_norms = any(
        isinstance(child, _BatchNorm) and names.keys().isdisjoint(child._parameters.values())
        for child in module.modules()
    )
    places = [
        (child._parameters, key, value)
        for child in module.modules()
        for key, value in child._parameters.items()
        if value in names
    ]
    for held, key, value in places:
        held[key] = stands[names[value]]  # type: ignore[assignment]
    try:
        with _FixedBatchNorms(attribution) if fixed_norms else nullcontext():
            yield stands
    finally:
        for held, key, value in places:
            held[key] = value
        for child in module.modules():
            for key, buffer in child._buffers.items():
                # One that was made of a parameter, as by spectral normalisation.
                if isinstance(buffer, StandIn):
                    child._buffers[key] = buffer.value
        for stand in stands.values():
            # Modules may hold on to a stand-in, but not to gradients.
            stand.leaves = []


class _FixedBatchNorms(TorchFunctionMode):
    """BatchNorm without weights, or with fixed ones, meets no stand-in, and yet ties the tasks together."""

    def __init__(self, attribution: Attribution) -> None:
        super().__init__()
        self.attribution = attribution

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, counts = kwargs or {}, current_rows()
        if func is F.batch_norm and StandIn not in types and counts is not None:
            output = joint_norm(self.attribution, counts, *args, **kwargs)
            if output is not None:
                return output
        return func(*args, **kwargs)
